"""Runs a prediction: every rank detects on its share of the chunks, and rank 0 begins and ends the run."""

import hashlib
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from hf_detr.data.drawing import draw_detections
from hf_detr.data.schema import DataError
from hf_detr.files import replace_file
from hf_detr.loading import check_complete, clear_loading_errors
from hf_detr.machine import cores
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import DetectionProcessing, HfDetrImageProcessor
from hf_detr.ranks import from_rank_0, local_rank, one_rank_first, process_group, rank, wait_for_all, world_size

from .chunks import BrokenSource, ChunkReader, FinishedChunk, PreparedBatch, as_it_is, divide
from .data_ids import ids_of_run
from .detection import detect_prepared
from .options import FORMATS, PredictionOptions
from .output import Manifest, OutputFolder, PredictionSummary
from .sources import identity, open_sources

MOST_WORKERS = 8
PATIENCE = timedelta(days=30)
"""The longest time that a rank waits for the others, which may finish hours later."""


def run_prediction(options: PredictionOptions, console: Console) -> PredictionSummary:
    """Detect objects in all pictures of the sources; a run that was killed continues where it was.

    Under `torchrun` or `accelerate launch` every rank takes its share. A picture that cannot be read is reported,
    recorded with its error, and does not end the run.

    Raises:
        ValueError: an option or a source cannot be used, or the output folder holds another run.
    """
    unknown = [name for name in options.formats if name not in FORMATS]
    if unknown or not options.formats:
        raise ValueError(f"--format: expected some of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")
    if options.annotations is not None and "coco" not in options.formats:
        raise ValueError(f"{options.annotations}: annotations give ids to predictions.json; add the format 'coco'")
    if (options.output / CONFIG_NAME).exists():
        raise ValueError(f"{options.output} holds a model ({CONFIG_NAME}); give predictions a folder of their own")
    with process_group("gloo", PATIENCE):
        with one_rank_first():
            streams = open_sources(options.sources, options.split, options.streaming)
            model, image_processor = load_detector(options.model)
        output, named = OutputFolder(options.output), options.annotations
        manifest = Manifest(
            sources=list(options.sources),
            pictures=identity(streams),
            model=options.model,
            weights=fingerprint(model, image_processor),
            threshold=options.threshold,
            chunk_size=options.chunk_size,
            formats=sorted(options.formats),
            annotations=None if named is None else f"{named} {file_hash(named)}",
        )

        def begin() -> tuple:
            ids = ids_of_run(options.annotations, model.config, options.sources, streams)
            return ids, output.begin(manifest, options.overwrite), output.done()

        ids, summary, done = from_rank_0(begin)
        if summary is None:
            share = divide(streams, options.chunk_size, done, rank(), world_size())
            reader = ChunkReader(
                streams, share, image_processor, options.chunk_size, options.batch_size, "pictures" in options.formats
            )
            _detect_share(options, reader, model, output, console)
            wait_for_all()  # until all chunks of all ranks are written
            summary = from_rank_0(lambda: output.finish(manifest, streams, ids))
        return summary


def load_detector(model: str) -> tuple[HfDetrForObjectDetection, HfDetrImageProcessor]:
    """Load a detector, in evaluation mode on this rank's accelerator if there is one, and its image processor.

    Raises:
        ValueError: a file of the model is missing, damaged or of another model.
    """
    with clear_loading_errors(model):
        detector, found = HfDetrForObjectDetection.from_pretrained(model, output_loading_info=True)
        image_processor = HfDetrImageProcessor.from_pretrained(model)
    check_complete(model, found)
    device = torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        device = torch.device(accelerator.type, local_rank() % torch.accelerator.device_count())
    return detector.eval().to(device), image_processor


def fingerprint(model: PreTrainedModel, image_processor: DetectionProcessing) -> str:
    """Return a hash of everything on which detections depend: weights, configuration and image processor."""
    digest = hashlib.sha256(model.config.to_json_string().encode() + image_processor.to_json_string().encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return a hash of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def default_workers(num_chunks: int) -> int:
    """Return how many processes shall read images for a rank; none where there is little to read."""
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if num_chunks < 2 else min(MOST_WORKERS, max(1, share // 2), num_chunks)


def _detect_share(
    options: PredictionOptions,
    reader: ChunkReader,
    model: HfDetrForObjectDetection,
    output: OutputFolder,
    console: Console,
) -> None:
    """Run the model over a rank's chunks and write their files."""
    names = model.config.class_names
    share = reader.share
    workers = (
        default_workers(len(share.chunks) + len(share.open_streams)) if options.workers is None else options.workers
    )
    loader = DataLoader(reader, batch_size=None, num_workers=workers, collate_fn=as_it_is)
    detections: dict[Any, dict[int, dict]] = {}
    with _progress(console) as progress:
        title = f"Detecting (rank {rank()} of {world_size()})" if world_size() > 1 else "Detecting"
        task = progress.add_task(title, total=reader.num_images())
        for message in loader:
            if isinstance(message, BrokenSource):
                raise DataError(message.message)
            if isinstance(message, PreparedBatch):
                found = detect_prepared(model, reader.image_processor, message.inputs, options.threshold)
                detections.setdefault(message.chunk, {}).update(zip(message.positions, found, strict=True))
                progress.advance(task, len(found))
                _draw(options.output, message, found, names)
            if isinstance(message, FinishedChunk):
                failed = [(row.file_name, row.error) for row in message.rows if row.error is not None]
                for name, problem in failed:
                    named = problem if name in problem else f"{name}: {problem}"
                    print(f"hf-detr: {named}", file=sys.stderr)
                progress.advance(task, len(failed))
                output.write_part(message.chunk, message.rows, detections.pop(message.chunk, {}), names)


def _draw(folder: Path, batch: PreparedBatch, detections: Sequence[dict[str, Tensor]], names: Sequence[str]) -> None:
    """Write the pictures of a batch with their boxes, if the originals came along."""
    for row, picture, detection in zip(batch.rows, batch.originals or (), detections, strict=False):
        drawn = draw_detections(picture, names=names, **detection)
        file = folder / f"{row.image_id:04d}_{Path(row.file_name).stem}.jpg"
        replace_file(file, partial(drawn.save, format="JPEG", quality=92))


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)
