"""One training run, from a data folder to a model folder; `hf-detr train` and `hf-detr demo` are this."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import BaseImageProcessor, PreTrainedModel, TrainerCallback, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME

from hf_detr.data import (
    PLAIN_AUGMENTATION,
    DetectionCollator,
    augmentation_options,
    build_augmentation,
    category_names,
    load_detection_data,
    load_streaming_data,
    undecoded,
)
from hf_detr.hub.evidence import CardEvidence, evidence_of, recipe_of
from hf_detr.hub.model_card import build_model_card
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.ranks import from_rank_0, one_rank_first, process_group

from .arguments import HfDetrTrainingArguments
from .callbacks import EarlyStopping, PredictionPictures, ResultFiles
from .recipe import SMALL_PRESETS, default_augmentation, default_image_size, training_arguments
from .settings import check_settings
from .trainer import HfDetrTrainer

# Published: the longest edge is at most 1333 pixels where the shortest is 800.
LONGEST_TO_SHORTEST = 1333 / 800
TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is made of; None stands for the recipe's choice.

    Attributes:
        data: a folder of detection data, or "synthetic"; see `load_detection_data`.
        output: the model folder to write.
        preset: the model to build.
        model: a folder or repository to start from instead of a new model.
        epochs, steps, batch_size, learning_rate: see `training_arguments`.
        streaming: read the training data as they arrive; see `load_streaming_data`. Needs `steps`.
        image_size: the shortest edge of the images in pixels.
        config_overrides: other fields of the model's configuration, by name.
        augmentation: one of `AUGMENTATIONS`; it gives way to `PLAIN_AUGMENTATION` in the last epochs.
        seed: of everything random.
        ema: evaluate and save a moving average of the weights.
        patience: stop after this many evaluations in a row without a better AP; None trains to the end.
        report_to: experiment trackers among `TRACKERS`, separated by commas. TensorBoard's files are in
            `output/tensorboard`.
        pretrained_backbone: start from timm's pretrained weights.
        overwrite: replace a model that `output` already holds.
        resume: go on with an interrupted run in `output`; all else must be as it was.
        command: what the model card quotes.
    """

    data: str
    output: Path
    preset: str = "tiny"
    model: str | None = None
    epochs: int | None = None
    steps: int | None = None
    streaming: bool = False
    batch_size: int | None = None
    learning_rate: float | None = None
    image_size: int | None = None
    config_overrides: Mapping[str, Any] = field(default_factory=dict)
    augmentation: str | None = None
    seed: int = 0
    ema: bool = True
    patience: int | None = None
    report_to: str | None = None
    pretrained_backbone: bool | None = None
    overwrite: bool = False
    resume: bool = False
    command: str | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the unfinished run."""
        return self.output / "checkpoints"

    @property
    def pictures(self) -> Path:
        """The folder of detections beside ground truth."""
        return self.output / "pictures"

    @property
    def trackers(self) -> list[str]:
        """The names in `report_to`."""
        return [name.strip() for name in (self.report_to or "").split(",") if name.strip()]


def run_training(options: RunOptions, callbacks: Sequence[TrainerCallback] = ()) -> dict[str, Any]:
    """Train, evaluate and save a model; return the result of `CocoMetrics` on the validation split.

    The model folder also gets a model card, `results.csv`, `results.png` and pictures. Checkpoints are in
    `checkpoints/` until the model is saved.

    Raises:
        ValueError: an option, the data or the output folder cannot be used; nothing is changed then.
    """
    if options.augmentation is not None:
        augmentation_options(options.augmentation)
    check_trackers(options.trackers)
    with process_group():
        return _train_on_all_ranks(options, callbacks)


def _train_on_all_ranks(options: RunOptions, callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    """Do the work of `run_training` on each rank; only rank 0 looks at the output folder and writes to it."""
    checkpoint = from_rank_0(lambda: check_output(options))
    with one_rank_first():
        data = load_data(options)
        args = training_arguments(
            options.preset,
            None if options.streaming else len(data["train"]),
            options.checkpoints,
            epochs=options.epochs,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
            ema=options.ema,
            report_to=options.trackers,
        )
        if options.augmentation is None:
            options = replace(options, augmentation=default_augmentation(options.preset, args, data["train"]))
        set_seed(options.seed)
        model, image_processor = build_model(options, category_names(data["train"]))
    from_rank_0(lambda: prepare_output(options))

    trainer = build_trainer(options, args, data, model, image_processor)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=checkpoint)
    result = trainer.evaluate_by_class()
    save_model_folder(options, trainer, result)
    return result


def load_data(options: RunOptions) -> dict[str, Dataset | IterableDataset]:
    """Return the splits; of streamed data, only the training split stays a stream.

    Raises:
        ValueError: the options do not fit together.
    """
    if not options.streaming:
        return load_detection_data(options.data, seed=options.seed)
    if options.steps is None:
        raise ValueError("a stream has no length: add --steps, the number of optimizer steps")
    if options.augmentation == "strong":
        raise ValueError("--augmentation strong combines pictures of the whole set, which a stream does not have")
    splits = load_streaming_data(options.data, seed=options.seed)
    validation = splits["validation"]
    # Evaluation needs all objects at once; the rows go to the cache on disk.
    stored = Dataset.from_generator(_rows_of, gen_kwargs={"stream": validation}, features=validation.features)
    return {"train": splits["train"], "validation": stored}


def _rows_of(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    yield from stream


def prepare_output(options: RunOptions) -> None:
    """Make the output folder, emptied of what `overwrite` replaces."""
    if options.overwrite:
        for folder in (options.checkpoints, options.pictures):
            shutil.rmtree(folder, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)


def check_output(options: RunOptions) -> str | None:
    """Check that the output folder may be written to; return the checkpoint to resume from, if any.

    Raises:
        ValueError: it holds a model or an unfinished run and the options do not say what to do, or nothing to resume.
    """
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for the model")
    has_model = (folder / "config.json").exists()
    checkpoint = last_complete_checkpoint(options.checkpoints)
    if options.resume:
        if checkpoint is None:
            raise ValueError(f"{folder} holds no unfinished run to resume")
        return checkpoint
    if not options.overwrite and (has_model or checkpoint):
        held = "a model" if has_model else "an unfinished run"
        remedy = "--overwrite to replace it" + ("" if checkpoint is None else ", or --resume to go on with it")
        raise ValueError(f"{folder} already holds {held}; add {remedy}")
    return None


def last_complete_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in a folder that was written to its end, if any."""

    def is_complete(checkpoint: Path) -> bool:
        try:  # written last
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return True

    steps = {int(path.name.removeprefix("checkpoint-")): path for path in folder.glob("checkpoint-[0-9]*")}
    return next((str(steps[step]) for step in sorted(steps, reverse=True) if is_complete(steps[step])), None)


def check_trackers(names: Sequence[str]) -> None:
    """Check that the experiment trackers are known and installed.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--report-to {name}: expected some of {', '.join(TRACKERS)}, separated by commas")
        if find_spec(name) is None:
            raise ValueError(f"--report-to {name}: {name} is not installed; pip install {name}")


def build_model(options: RunOptions, class_names: list[str]) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Build the model that the options name, for the classes of the data, and its image processor."""
    classes: dict[str, Any] = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: label for label, name in enumerate(class_names)},
    }
    changes = dict(options.config_overrides)
    size = None
    if options.image_size is not None or options.model is None:
        shortest = options.image_size or default_image_size(options.preset)
        size = {"shortest_edge": shortest, "longest_edge": round(shortest * LONGEST_TO_SHORTEST)}
    if options.model is not None:
        check_settings(HfDetrConfig.from_pretrained(options.model), changes)
        changes |= classes
        model = HfDetrForObjectDetection.from_pretrained(options.model, ignore_mismatched_sizes=True, **changes)
        image_processor = HfDetrImageProcessor.from_pretrained(options.model, **({"size": size} if size else {}))
        return model, image_processor

    pretrained = options.pretrained_backbone
    if pretrained is None:
        pretrained = options.preset not in SMALL_PRESETS
    check_settings(HfDetrConfig.from_preset(options.preset), changes)
    changes = {"use_pretrained_backbone": pretrained, **changes, **classes}
    config = HfDetrConfig.from_preset(options.preset, **changes)
    classification = "softmax" if config.classification == "softmax" else "sigmoid"
    return HfDetrForObjectDetection(config), HfDetrImageProcessor(size=size, classification=classification)


def augmentation_edges(size: Mapping[str, int]) -> tuple[int, int]:
    """The shortest and longest edge that images are augmented at, for the `size` of an image processor.

    Where it is a fixed size, the image processor resizes to it afterwards.
    """
    shortest = size.get("shortest_edge") or min(size.values())
    longest = size.get("longest_edge") or max(max(size.values()), round(shortest * LONGEST_TO_SHORTEST))
    return shortest, longest


def build_trainer(
    options: RunOptions,
    args: HfDetrTrainingArguments,
    data: Mapping[str, Dataset | IterableDataset],
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
) -> HfDetrTrainer:
    """Put together the trainer of a run, with augmentation, result files and pictures."""
    train_data = undecoded(data["train"])
    edges = augmentation_edges(dict(image_processor.size))
    collators = [
        DetectionCollator(image_processor, build_augmentation(name, *edges, train_data, model.config.num_queries))
        for name in (options.augmentation, PLAIN_AUGMENTATION[options.augmentation])
    ]
    callbacks = [ResultFiles(options.output), PredictionPictures(options.pictures, data["validation"])]
    if options.patience is not None:
        callbacks.append(EarlyStopping(options.patience))
    trainer = HfDetrTrainer(
        model,
        args,
        collators[0],
        train_data,
        undecoded(data["validation"]),
        image_processor,
        plain_data_collator=collators[1],
        callbacks=callbacks,
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):  # its own choice is among the checkpoints, which are removed
            callback.logging_dir = str(options.output / "tensorboard")
    return trainer


def save_model_folder(options: RunOptions, trainer: HfDetrTrainer, result: dict[str, Any]) -> None:
    """Write weights, configuration, image processor and model card; a folder with `config.json` is complete."""
    if not trainer.is_world_process_zero():
        return
    beside = options.output / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    trainer.model.save_pretrained(beside)
    trainer.processing_class.save_pretrained(beside)
    build_model_card(card_evidence(options, trainer, result)).save(beside / "README.md")
    for file in sorted(beside.iterdir(), key=lambda file: file.name == "config.json"):
        os.replace(file, options.output / file.name)
    beside.rmdir()
    shutil.rmtree(options.checkpoints)


def card_evidence(options: RunOptions, trainer: HfDetrTrainer, result: dict[str, Any]) -> CardEvidence:
    """Collect what the model card says about a finished run."""
    is_synthetic, is_folder = options.data.startswith("synthetic"), Path(options.data).exists()
    name, _, _ = options.data.partition(":")  # "synthetic:500", or a subset on the Hub
    return evidence_of(
        trainer,
        result,
        model_id=str(options.output),
        preset=options.preset if options.model is None else None,
        base_model=options.model,
        dataset_name=Path(options.data).resolve().name if is_folder and not is_synthetic else name,
        dataset_id=None if is_folder or is_synthetic else name,
        recipe=recipe_of(trainer) | {"augmentation": options.augmentation},
        command=options.command,
        samples={
            f"{options.pictures.name}/{path.name}": "ground truth and detections"
            for path in sorted(options.pictures.glob("*.jpg"))
        },
    )
