"""Collects for the model card what a trainer knows about the model that it has trained."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import TrainerState, TrainingArguments

from hf_detr.data import category_names, data_fingerprint, decode_image, undecoded
from hf_detr.hub.evidence import CardEvidence
from hf_detr.hub.papers import paper_of
from hf_detr.hub.speed import measure_speed
from hf_detr.machine import hardware_line, package_versions
from hf_detr.modeling.pretrained import HfDetrPreTrainedModel
from hf_detr.processing.image_processing import DetectionProcessing


class Trained(Protocol):
    """What is read of a trainer."""

    train_dataset: Any
    eval_dataset: Any
    state: TrainerState

    @property
    def model(self) -> HfDetrPreTrainedModel:
        """The model that it trains."""

    @property
    def args(self) -> TrainingArguments:
        """The arguments of the run."""

    @property
    def processing_class(self) -> DetectionProcessing | None:
        """The image processor."""


def evidence_of(trainer: Trained, metrics: Mapping[str, Any] | None, **known: Any) -> CardEvidence:
    """Collect what a trainer knows after `train`, and measure the speed of its model.

    Args:
        trainer: the trainer. Its model, image processor, arguments and data sets are read; streams are not counted.
        metrics: a result of `CocoMetrics`, or None.
        **known: further fields of `CardEvidence`. They take precedence over what is found here.
    """
    config = trainer.model.config
    given = {"train": trainer.train_dataset if trainer.state.global_step else None, "validation": trainer.eval_dataset}
    splits = {name: data for name, data in given.items() if isinstance(data, Dataset) and "objects" in data.features}
    found: dict[str, Any] = {
        "paper": paper_of(config),
        "class_names": config.class_names,
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
        found["best_by"] = str(trainer.args.metric_for_best_model).removeprefix("eval_")
    processor = trainer.processing_class
    if processor is not None:
        found["input_size"] = {name: value for name, value in dict(processor.size).items() if value is not None}
    if "train" in splits:
        found |= _statistics(splits["train"], found.get("input_size", {}))
    if processor is not None and splits:
        row = undecoded(splits.get("validation", splits.get("train")))[0]
        found["speed"] = measure_speed(trainer.model, processor, decode_image(row["image"], row["image_id"]))
    return CardEvidence(**(found | known))


def recipe_of(trainer: Trained) -> dict[str, Any]:
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


def _statistics(dataset: Dataset, input_size: Mapping[str, int]) -> dict[str, Any]:
    """Return the objects of each class, and how large objects are when the model sees them, crowd regions aside."""
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
