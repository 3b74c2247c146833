"""What is known about a trained model, collected where it was trained: the ground of its card."""

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainingArguments

from hf_detr.data import category_names, data_fingerprint, decode_image, undecoded

from .papers import Paper, paper_of
from .speed import Speed, measure_speed

if TYPE_CHECKING:
    from hf_detr.training import HfDetrTrainer

_REPORTED_PACKAGES = ("hf-detr", "torch", "torchvision", "transformers", "timm")


@dataclass(frozen=True, kw_only=True)
class CardEvidence:
    """What is known about a model; whatever is missing, its card does not claim.

    Attributes:
        model_id: the repository or folder that the usage snippet loads, e.g. "someone/blood-cells".
        paper: the one that describes the architecture.
        preset: the name of the preset that the model was built from.
        base_model: the repository or folder that training started from.
        class_names: what the model finds, in the order of its labels.
        num_queries: the most objects it can find in an image.
        dataset_name: what the data is called.
        dataset_fingerprint: identifies the exact data, see `data_fingerprint`.
        dataset_split: the split that `metrics` were measured on.
        dataset_id: the data set's repository on the Hub, if it has one.
        num_images: split to number of images.
        train_objects: class to number of its objects in the training images.
        object_sides: the 10 % and 90 % quantiles of the sides of the training objects (square roots of the areas of
            their boxes), in pixels at the size that the model sees.
        input_size: the image processor's size, e.g. {"shortest_edge": 256, "longest_edge": 427}.
        metrics: a result of `CocoMetrics`, or None when the model was not evaluated.
        best_by: the metric on that same split by which the weights were chosen among those of several evaluations.
        speed: of the forward pass, measured after training.
        recipe: the training settings that matter, as they should be shown.
        command: the exact command that trained the model.
        hardware: one line, see `hardware_line`.
        versions: package to version, see `package_versions`.
        samples: pictures with detections, path inside the repository to caption.
        limitations: sentences beyond those that follow from the evidence.
        license: the licence of the weights, by its identifier on the Hub; "unknown" where nobody stated one.
    """

    model_id: str
    paper: Paper
    preset: str | None = None
    base_model: str | None = None
    class_names: Sequence[str] = ()
    num_queries: int | None = None
    dataset_name: str | None = None
    dataset_fingerprint: str | None = None
    dataset_split: str = "validation"
    dataset_id: str | None = None
    num_images: Mapping[str, int] = field(default_factory=dict)
    train_objects: Mapping[str, int] = field(default_factory=dict)
    object_sides: tuple[float, float] | None = None
    input_size: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    best_by: str | None = None
    speed: Speed | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    hardware: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    limitations: Sequence[str] = ()
    license: str = "unknown"


def evidence_of(trainer: "HfDetrTrainer", metrics: Mapping[str, Any] | None, **known: Any) -> CardEvidence:
    """Collect what a trainer knows after `train`, and measure the speed of its model.

    Args:
        trainer: with its model, image processor, arguments and data sets; streamed data sets are not counted.
        metrics: a result of `CocoMetrics`, or None.
        **known: further fields of `CardEvidence`, which go before what is found here.
    """
    config = trainer.model.config
    given = {"train": trainer.train_dataset if trainer.state.global_step else None, "validation": trainer.eval_dataset}
    splits = {name: data for name, data in given.items() if isinstance(data, Dataset) and "objects" in data.features}
    found: dict[str, Any] = {
        "paper": paper_of(config),
        "class_names": [name for _, name in sorted(config.id2label.items())],
        "num_queries": config.num_queries,
        "num_images": {split: len(data) for split, data in splits.items()},
        "metrics": metrics,
        "recipe": recipe_of(trainer),
        "hardware": hardware_line(),
        "versions": package_versions(),
    }
    if splits:
        found["dataset_fingerprint"] = data_fingerprint(DatasetDict(splits))
    if trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        found["best_by"] = trainer.args.metric_for_best_model.removeprefix("eval_")
    processor = trainer.processing_class
    if processor is not None:
        found["input_size"] = {name: value for name, value in dict(processor.size).items() if value is not None}
    if "train" in splits:
        found |= _statistics(splits["train"], found.get("input_size", {}))
    if processor is not None and splits:
        row = undecoded(splits.get("validation", splits.get("train")))[0]
        found["speed"] = measure_speed(trainer.model, processor, decode_image(row["image"], row["image_id"]))
    return CardEvidence(**(found | known))


def recipe_of(trainer: "HfDetrTrainer") -> dict[str, Any]:
    """The settings of a run that matter, as a table shows them; empty where nothing was trained."""
    args, state = trainer.args, trainer.state
    if not state.global_step:
        return {}
    batch = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    recipe = {
        "epochs": round(state.epoch or 0, 2),
        "optimizer steps": state.global_step,
        "weights kept from step": state.best_global_step if args.load_best_model_at_end else None,
        "images per optimizer step": batch,
        "optimizer": getattr(args.optim, "value", args.optim),
        "learning rate": args.learning_rate,
        "schedule": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        "warm-up": f"{args.warmup_steps:.0%} of the steps" if args.warmup_steps < 1 else f"{args.warmup_steps} steps",
        "weight decay": args.weight_decay,
        "gradient clipping": args.max_grad_norm,
        "precision": "bfloat16, mixed" if args.bf16 else "float16, mixed" if args.fp16 else "float32",
        "seed": args.seed,
    }
    inherited = {known.name for known in fields(TrainingArguments)}
    own = {ours.name: getattr(args, ours.name) for ours in fields(args) if ours.name not in inherited}
    recipe |= {name.replace("_", " "): value for name, value in own.items()}
    return {name: value for name, value in recipe.items() if value is not None}


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that decide what a model computes."""
    return {package: importlib.metadata.version(package) for package in _REPORTED_PACKAGES}


def hardware_line() -> str:
    """The accelerators of this machine, or its processor, in one line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores ({processor_name()}), no accelerator"


def processor_name() -> str:
    """What the processor calls itself."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _statistics(dataset: Dataset, input_size: Mapping[str, int]) -> dict[str, Any]:
    """Objects per class, and how large they are when the model sees them; crowd regions do not count."""
    names = category_names(dataset)
    counts: Counter[int] = Counter()
    sides: list[float] = []
    for row in dataset.with_format(None).select_columns(["width", "height", "objects"]):
        scale = _scale(row["width"], row["height"], input_size)
        columns = (row["objects"][name] for name in ("bbox", "category", "iscrowd"))
        for (_, _, width, height), label, crowd in zip(*columns, strict=True):
            if not crowd:
                counts[label] += 1
                sides.append(scale * (width * height) ** 0.5)
    few, many = np.quantile(sides, [0.1, 0.9]).tolist() if sides else (0.0, 0.0)
    return {
        "train_objects": {name: counts[label] for label, name in enumerate(names)},
        "object_sides": (few, many) if sides and input_size else None,
    }


def _scale(width: int, height: int, size: Mapping[str, int]) -> float:
    """The factor by which an image is resized (the geometric mean of both axes)."""
    if {"height", "width"} <= set(size):
        return (size["height"] * size["width"] / (height * width)) ** 0.5
    scale = size["shortest_edge"] / min(width, height) if "shortest_edge" in size else 1.0
    return min(scale, size["longest_edge"] / max(width, height)) if "longest_edge" in size else scale
