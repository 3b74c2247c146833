"""`transformers.Trainer` itself on our models, with the steps of transformers' object-detection guide.

The steps are those of https://huggingface.co/docs/transformers/tasks/object_detection and of its script
`run_object_detection.py`, without augmentation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection, EvalPrediction, Trainer, TrainingArguments

from hf_detr import HfDetrForObjectDetection
from hf_detr.data import category_names
from hf_detr.evaluation import CocoMetrics
from hf_detr.processing.image_processing import HfDetrImageProcessor

SQUARE = 96


@dataclass
class LogitsAndBoxes:
    """What the guide gives to post-processing in place of a model's output."""

    logits: Tensor
    pred_boxes: Tensor


def transform_rows(rows: dict[str, list], image_processor: Any) -> dict[str, Any]:
    annotations = []
    for image_id, objects in zip(rows["image_id"], rows["objects"], strict=True):
        columns = (objects[name] for name in ("category", "bbox", "area"))
        items = [
            {"image_id": image_id, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
            for label, box, area in zip(*columns, strict=True)
        ]
        annotations.append({"image_id": image_id, "annotations": items})
    images = [np.array(image.convert("RGB")) for image in rows["image"]]
    return image_processor(images=images, annotations=annotations, return_tensors="pt")


def collate(batch: list[dict]) -> dict[str, Any]:
    data = {"pixel_values": torch.stack([item["pixel_values"] for item in batch])}
    data["labels"] = [item["labels"] for item in batch]
    if "pixel_mask" in batch[0]:
        data["pixel_mask"] = torch.stack([item["pixel_mask"] for item in batch])
    return data


def mean_average_precision(results: EvalPrediction, image_processor: Any, seen: list[int]) -> dict[str, float]:
    """Score as the guide does: predictions and labels are lists of batches, (loss_dict, logits, boxes, …) each."""
    predictions, references = [], []
    for batch, targets in zip(results.predictions, results.label_ids, strict=True):
        sizes = torch.tensor(np.array([target["orig_size"] for target in targets]))
        output = LogitsAndBoxes(torch.tensor(batch[1]), torch.tensor(batch[2]))
        detected = image_processor.post_process_object_detection(output, threshold=0.0, target_sizes=sizes)
        assert set(batch[0]) >= {"loss_ce", "loss_bbox", "loss_giou"}
        for target, found in zip(targets, detected, strict=True):
            height, width = target["orig_size"]
            x, y, w, h = (target["boxes"] * np.array([width, height, width, height])).T
            boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
            image_id = len(references)
            columns = {"labels": target["class_labels"], "area": w * h, "iscrowd": np.zeros(len(boxes), dtype=int)}
            references.append({"image_id": image_id, "boxes": boxes, **columns})
            predictions.append({"image_id": image_id} | {name: value.numpy() for name, value in found.items()})
    seen.append(sum(len(reference["boxes"]) for reference in references))
    metrics = CocoMetrics(keep_in_memory=True).compute(predictions=predictions, references=references)
    return {"map": metrics["AP"], "map_50": metrics["AP50"]}


@pytest.fixture
def guide(
    build_model: Callable[..., HfDetrForObjectDetection], train_data: Dataset, validation_data: Dataset, tmp_path: Path
) -> Callable[..., Trainer]:
    """The trainer that the guide builds from a model folder."""

    def build(model_fields: dict[str, Any] | None = None, **arguments: Any) -> Trainer:
        checkpoint = tmp_path / "checkpoint"
        build_model(**model_fields or {}).save_pretrained(checkpoint)
        HfDetrImageProcessor().save_pretrained(checkpoint)
        image_processor = AutoImageProcessor.from_pretrained(
            checkpoint,
            do_resize=True,
            size={"max_height": SQUARE, "max_width": SQUARE},
            do_pad=True,
            pad_size={"height": SQUARE, "width": SQUARE},
        )
        names = dict(enumerate(category_names(train_data)))
        model = AutoModelForObjectDetection.from_pretrained(
            checkpoint,
            id2label=names,
            label2id={name: label for label, name in names.items()},
            ignore_mismatched_sizes=True,
        )
        transform = partial(transform_rows, image_processor=image_processor)
        seen: list[int] = []
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_grad_norm": 0.01,
            "remove_unused_columns": False,
            "eval_do_concat_batches": False,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**defaults | arguments),
            train_dataset=train_data.with_transform(transform),
            eval_dataset=validation_data.with_transform(transform),
            processing_class=image_processor,
            data_collator=collate,
            compute_metrics=partial(mean_average_precision, image_processor=image_processor, seen=seen),
        )
        trainer.seen_boxes = seen
        return trainer

    return build


def number_of_boxes(data: Dataset) -> int:
    return sum(len(objects["category"]) for objects in data["objects"])


@pytest.mark.parametrize(
    ("model_fields", "arguments"),
    [({}, {}), ({"auxiliary_loss": False}, {"label_names": ["labels"]}), ({}, {"bf16": True})],
    ids=["all layers", "last layer", "bf16"],
)
def test_training_as_the_guide_does_it(guide, validation_data, tmp_path, model_fields, arguments):
    trainer = guide(
        model_fields,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_map",
        greater_is_better=True,
        **arguments,
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    metrics = trainer.evaluate(eval_dataset=trainer.eval_dataset, metric_key_prefix="test")
    assert np.isfinite(metrics["test_loss"])
    assert 0 <= metrics["test_map"] <= 1
    # twice while training and once after it, and not a box is lost in the last batch, which is short
    assert len(validation_data) % 2 == 1
    assert trainer.seen_boxes == [number_of_boxes(validation_data)] * 3
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "preprocessor_config.json").is_file()


@pytest.mark.parametrize("auxiliary_loss", [True, False])
@pytest.mark.parametrize("concatenate", [True, False])
def test_predictions_are_loss_dict_logits_and_boxes(guide, validation_data, auxiliary_loss, concatenate):
    trainer = guide({"auxiliary_loss": auxiliary_loss}, eval_do_concat_batches=concatenate)
    trainer.compute_metrics = None
    output = trainer.predict(trainer.eval_dataset)
    batches = [output.predictions] if concatenate else output.predictions
    images = [5] if concatenate else [2, 2, 1]
    assert [len(batch) for batch in batches] == [3] * len(images)
    for (losses, logits, boxes), count in zip(batches, images, strict=True):
        assert set(losses) >= {"loss_ce", "loss_bbox", "loss_giou"}
        assert logits.shape == (count, 10, 7)
        assert boxes.shape == (count, 10, 4)


def test_evaluation_without_metrics_gives_the_loss(guide):
    trainer = guide()
    trainer.compute_metrics = None
    assert np.isfinite(trainer.evaluate()["eval_loss"])
