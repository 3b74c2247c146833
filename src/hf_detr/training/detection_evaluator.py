"""COCO metrics of a model over a data set, batch by batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import BaseImageProcessor, EvalPrediction
from transformers.utils import ModelOutput

from hf_detr.data.schema import category_names
from hf_detr.evaluation import CocoMetrics

from .packed_labels import unpack_labels

ANNOTATION_COLUMNS = ["image_id", "objects"]


class DetectionEvaluator:
    """Collects the detections of one pass over a data set and scores them at its end.

    Only boxes, scores and labels are kept of a batch, not its logits. The reference objects are read from the data
    set, not from the labels of the batches: those lack crowd regions and are normalised.

    Args:
        dataset: a data set with the columns `image_id` and `objects`.
        image_processor: gives detections in the pixels of the original images.
    """

    def __init__(self, dataset: Dataset, image_processor: BaseImageProcessor):
        self.dataset = dataset
        self.image_processor = image_processor
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
            image_id = label["image_id"].item()
            columns = {name: detection[name].cpu().numpy() for name in ("boxes", "scores", "labels")}
            self.detections[image_id] = {"image_id": image_id, **columns}

    def compute(self) -> dict[str, Any]:
        """Return the result of `CocoMetrics` over the whole data set."""
        # In memory: the processes of a distributed run would compete for one cache file.
        metrics = CocoMetrics(class_names=category_names(self.dataset), keep_in_memory=True)
        return metrics.compute(
            predictions=list(self.detections.values()), references=list(reference_objects(self.dataset))
        )


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
