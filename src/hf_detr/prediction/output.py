"""Writes the output folder of a prediction run: a manifest, one parquet file a chunk, and at the end the results.

A chunk's file appears when it is complete, so the files are also the record of what is done.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from hf_detr.files import read_json, replace_file, write_json

from .chunks import Chunk, Row
from .data_ids import DataIds
from .sources import Stream

PART_NAME = re.compile(r"stream-(\d+)-chunk-(\d+)\.parquet")
PART_SCHEMA = pyarrow.schema(
    {
        "image_id": pyarrow.int64(),
        "file_name": pyarrow.string(),
        "width": pyarrow.int32(),
        "height": pyarrow.int32(),
        "boxes": pyarrow.list_(pyarrow.list_(pyarrow.float32(), 4)),
        "scores": pyarrow.list_(pyarrow.float32()),
        "labels": pyarrow.list_(pyarrow.int64()),
        "label_names": pyarrow.list_(pyarrow.string()),
        "error": pyarrow.string(),
    }
)
"""`boxes` are (x0, y0, x1, y1) in pixels; a picture that could not be read has an `error`, and no size and boxes."""


@dataclass(frozen=True)
class Manifest:
    """Everything that the results of a run depend on; see `PredictionOptions`. `pictures` and `weights` are hashes.

    `annotations` names the annotation file and holds a hash of it.
    """

    sources: list[str]
    pictures: str
    model: str
    weights: str
    threshold: float
    chunk_size: int
    formats: list[str]
    annotations: str | None


@dataclass(frozen=True)
class PredictionSummary:
    """The counts of a finished run: all pictures, the pictures that could not be read, and detections.

    `remarks` are sentences about pictures and classes to which the annotation file gives no id.
    """

    images: int
    failed: int
    detections: int
    remarks: list[str]


@dataclass(frozen=True)
class OutputFolder:
    """The files of a run."""

    folder: Path

    @property
    def manifest(self) -> Path:
        """The file with the options of the run, and with its summary once it is finished."""
        return self.folder / "manifest.json"

    @property
    def parts(self) -> Path:
        """The folder of the chunks' files."""
        return self.folder / "parts"

    @property
    def predictions(self) -> Path:
        """All detections in the COCO results format."""
        return self.folder / "predictions.json"

    @property
    def failed(self) -> Path:
        """The pictures that could not be read, if any."""
        return self.folder / "failed.json"

    def part(self, chunk: Chunk) -> Path:
        """The file of a chunk."""
        return self.parts / f"stream-{chunk.stream:05d}-chunk-{chunk.number:06d}.parquet"

    def begin(self, manifest: Manifest, overwrite: bool) -> PredictionSummary | None:
        """Start a run, or go on with it; return its summary if it is finished already.

        Raises:
            ValueError: the folder holds another run, or is no folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; expected a folder for the predictions")
        if overwrite:
            self.manifest.unlink(missing_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)
            self.predictions.unlink(missing_ok=True)
            self.failed.unlink(missing_ok=True)
        summary = self._check(manifest)
        self.parts.mkdir(parents=True, exist_ok=True)
        for partial in self.parts.glob(".*.partial"):
            partial.unlink()
        if summary is None:
            self._write_manifest(manifest, None)
        return summary

    def _check(self, manifest: Manifest) -> PredictionSummary | None:
        remedy = "--overwrite starts anew, another --output keeps it"
        if not self.manifest.exists():
            if self.parts.exists():
                raise ValueError(f"{self.parts} holds parts of a run without its {self.manifest.name}; {remedy}")
            return None
        try:
            held = read_json(self.manifest)
            summary = held.pop("finished")
            before = Manifest(**held)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self.manifest}: expected the manifest of a prediction run ({error}); {remedy}"
            ) from error
        differences = [
            f"{name} was {old!r} and is {new!r}"
            for (name, old), new in zip(asdict(before).items(), asdict(manifest).values(), strict=True)
            if old != new
        ]
        if differences:
            raise ValueError(f"{self.folder} holds another prediction run: {'; '.join(differences)}. {remedy}")
        return summary and PredictionSummary(**summary)

    def _write_manifest(self, manifest: Manifest, summary: PredictionSummary | None) -> None:
        content = {**asdict(manifest), "finished": summary and asdict(summary)}
        write_json(self.manifest, content)

    def done(self) -> frozenset[Chunk]:
        """Return the finished chunks."""
        matches = (PART_NAME.fullmatch(path.name) for path in self.parts.iterdir())
        return frozenset(Chunk(int(match[1]), int(match[2])) for match in matches if match)

    def write_part(self, chunk: Chunk, rows: Sequence[Row], detections: dict[int, dict], names: Sequence[str]) -> None:
        """Write the file of a chunk. `detections` are by position in `rows`; rows that could not be read have none."""
        columns: dict[str, list] = {name: [] for name in PART_SCHEMA.names}
        for position, row in enumerate(rows):
            found = {key: value.tolist() for key, value in detections.get(position, {}).items()}
            labels = found.get("labels", [])
            found = {
                "boxes": [],
                "scores": [],
                "labels": [],
                "label_names": [names[label] for label in labels],
                **found,
            }
            for name, value in {**asdict(row), **found}.items():
                columns[name].append(value)
        table = pyarrow.table(columns, schema=PART_SCHEMA)
        replace_file(self.part(chunk), lambda path: pyarrow.parquet.write_table(table, path))

    def finish(self, manifest: Manifest, streams: Sequence[Stream], ids: DataIds) -> PredictionSummary:
        """Merge the chunks into the files of the formats, and mark the run as finished.

        Args:
            manifest: the run.
            streams: its pictures.
            ids: the ids of pictures and classes in `predictions.json`.

        Raises:
            ValueError: a chunk is missing or cannot be read.
        """
        chunks = sorted(self.done())
        self._check_complete(chunks, streams, manifest.chunk_size)
        failed: list[dict[str, Any]] = []
        counts = {"images": 0, "detections": 0}

        def results() -> Iterator[dict[str, Any]]:
            for chunk in chunks:
                for row in self._read_part(chunk):
                    counts["images"] += 1
                    counts["detections"] += len(row["scores"])
                    if row["error"] is not None:
                        failed.append({name: row[name] for name in ("image_id", "file_name", "error")})
                    yield from coco_results(row, ids)

        if "coco" in manifest.formats:
            replace_file(self.predictions, lambda path: write_rows(results(), path))
        else:
            for _ in results():
                pass
        if failed:
            write_json(self.failed, failed)
        summary = PredictionSummary(failed=len(failed), remarks=ids.remarks(), **counts)
        self._write_manifest(manifest, summary)
        if "parquet" not in manifest.formats:
            shutil.rmtree(self.parts)
        return summary

    def _check_complete(self, chunks: Sequence[Chunk], streams: Sequence[Stream], chunk_size: int) -> None:
        held = set(chunks)
        for index, stream in enumerate(streams):
            found = sum(chunk.stream == index for chunk in chunks)
            expected = found if stream.length is None else -(-stream.length // chunk_size)
            missing = [number for number in range(expected) if (index, number) not in held]
            if missing:
                raise ValueError(f"{self.part(Chunk(index, missing[0]))} is missing; start the same command again")

    def _read_part(self, chunk: Chunk) -> list[dict[str, Any]]:
        path = self.part(chunk)
        try:
            return pyarrow.parquet.read_table(path, schema=PART_SCHEMA).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            problem = f"cannot be read ({error}); delete it and start the same command again"
            raise ValueError(f"{path} {problem}") from error


def coco_results(row: dict[str, Any], ids: DataIds) -> Iterator[dict[str, Any]]:
    """Yield the detections of a picture in the COCO results format, `bbox` (x, y, width, height), with names added."""
    image_id = ids.image_id(row["file_name"], row["image_id"])
    columns = (row[name] for name in ("boxes", "labels", "label_names", "scores"))
    for (left, top, right, bottom), label, name, score in zip(*columns, strict=True):
        category_id = ids.category_id(label, name)
        if image_id is not None and category_id is not None:
            yield {
                "image_id": image_id,
                "file_name": row["file_name"],
                "category_id": category_id,
                "category_name": name,
                "bbox": [shortest(value) for value in (left, top, right - left, bottom - top)],
                "score": shortest(score),
            }


def shortest(value: float) -> float:
    """Return the number with the fewest digits that is the same in float32. More rounding would change the score."""
    return float(str(np.float32(value)))


def write_rows(rows: Iterator[dict[str, Any]], path: Path) -> None:
    """Write a JSON list, one element a line, without holding it in memory."""
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for row in rows:
            file.write(separator + json.dumps(row))
            separator = ",\n"
        file.write("\n]\n" if separator != "[\n" else "[]\n")
