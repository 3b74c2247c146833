"""Collects COCO metrics of a model over a data set, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction
from transformers.utils import ModelOutput

from hf_detr.data.schema import category_names
from hf_detr.evaluation import CocoMetrics
from hf_detr.processing.image_processing import DetectionProcessing

from .packed_labels import unpack_labels

ANNOTATION_COLUMNS = ["image_id", "objects"]


class DetectionEvaluator:
    """Collects the detections of one pass over a data set and scores them at its end.

    Only boxes, scores and labels are kept of a batch, not its logits. The reference objects are read from the data
    set, not from the labels of the batches, which lack crowd regions and are normalised.

    Args:
        dataset: a data set with the columns `image_id` and `objects`.
        image_processor: the image processor that gives detections in the pixels of the original images.
        model_names: the classes of the model in the order of its labels. They may be more than the classes of the
            data, and in another order. Detections of classes that the data do not have are left out.

    Raises:
        ValueError: the model does not know a class of the data.
    """

    def __init__(self, dataset: Dataset, image_processor: DetectionProcessing, model_names: Sequence[str]):
        self.dataset = dataset
        self.image_processor = image_processor
        self.label_in_data = labels_in_data(model_names, category_names(dataset))
        self.detections: dict[int, dict[str, Any]] = {}

    def add(self, prediction: EvalPrediction) -> None:
        """Take the detections of a batch: `predictions` are (logits, pred_boxes), `label_ids` are `pack_labels`."""
        logits, pred_boxes = (torch.as_tensor(array) for array in prediction.predictions)
        labels = unpack_labels(torch.as_tensor(prediction.label_ids))
        detections = self.image_processor.post_process_object_detection(
            ModelOutput(logits=logits.float(), pred_boxes=pred_boxes.float()),
            threshold=0.0,
            target_sizes=torch.stack([label["orig_size"] for label in labels]).to(logits.device),
        )
        for label, detection in zip(labels, detections, strict=True):
            image_id = int(label["image_id"])
            detected = self.label_in_data[detection["labels"].cpu()]
            columns = {"boxes": detection["boxes"].cpu(), "scores": detection["scores"].cpu(), "labels": detected}
            known = {name: values[detected >= 0].numpy() for name, values in columns.items()}
            self.detections[image_id] = {"image_id": image_id, **known}

    def compute(self) -> dict[str, Any]:
        """Return the result of `CocoMetrics` over the whole data set."""
        # The metric stays in memory, because the processes of a distributed run would compete for one cache file.
        metrics = CocoMetrics(class_names=category_names(self.dataset), keep_in_memory=True)
        return metrics.compute(
            predictions=list(self.detections.values()), references=list(reference_objects(self.dataset))
        )


def labels_in_data(model_names: Sequence[str], data_names: Sequence[str]) -> Tensor:
    """Return the label in the data of each label of a model, -1 where the data have no such class.

    Raises:
        ValueError: the model does not know a class of the data.
    """
    if same_classes(model_names, data_names):
        return torch.arange(len(data_names))
    missing = [name for name in data_names if name not in model_names]
    if missing:
        raise ValueError(f"the model does not know the classes {missing} of the data; it knows {list(model_names)}")
    return torch.tensor([data_names.index(name) if name in data_names else -1 for name in model_names])


def same_classes(model_names: Sequence[str], data_names: Sequence[str]) -> bool:
    """Return whether a model has the labels of the data. Names that transformers made up count as equal to any."""
    unnamed = [f"LABEL_{label}" for label in range(len(data_names))]
    return list(model_names) in (list(data_names), unnamed)


def reference_objects(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the objects of each image as `CocoMetrics` takes them, crowds included; images are not decoded."""
    for image_id, objects in annotation_rows(dataset):
        boxes = np.array(objects["bbox"], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        columns = {"labels": objects["category"], "area": objects["area"], "iscrowd": objects["iscrowd"]}
        yield {"image_id": image_id, "boxes": boxes, **columns}


def annotation_rows(dataset: Dataset) -> Iterator[tuple[int, dict[str, list]]]:
    """Yield (image id, objects) of each image of a data set in the schema, without decoding images."""
    for row in dataset.with_format(None).select_columns(ANNOTATION_COLUMNS):
        yield row["image_id"], row["objects"]
