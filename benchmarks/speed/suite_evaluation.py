"""The suite that measures COCO metrics: ours, and pycocotools on the same detections."""

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hf_detr.benchmarking.contest import Comparison, Contestant, Work
from hf_detr.benchmarking.options import BenchOptions
from hf_detr.benchmarking.peers import require

NUM_CLASSES = 20
OBJECTS = 7
DETECTIONS = 100


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield evaluations of a hundred detections an image, as sigmoid models give them."""
    for images in (20,) if options.quick else (200, 1000):
        contestants = [
            Contestant("hf_detr", partial(ours, images)),
            Contestant("faster-coco-eval", partial(faster_coco_eval, images)),
            Contestant("pycocotools", partial(pycocotools, images)),
        ]
        yield Comparison(f"{images} images, {DETECTIONS} detections each", contestants, "pycocotools")


def results(images: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return predictions and references for `CocoMetrics`: objects found with some error, and false detections."""
    random = np.random.default_rng(0)
    predictions, references = [], []
    for image_id in range(images):
        corners, sides = random.uniform(0, 500, (OBJECTS, 2)), random.uniform(8, 250, (OBJECTS, 2))
        boxes = np.concatenate([corners, corners + sides], axis=1)
        labels = random.integers(0, NUM_CLASSES, OBJECTS)
        references.append(
            {
                "image_id": image_id,
                "boxes": boxes,
                "labels": labels,
                "area": sides.prod(1),
                "iscrowd": np.zeros(OBJECTS, dtype=int),
            }
        )
        which = random.integers(0, OBJECTS, DETECTIONS)
        near = boxes[which] + random.normal(0, 10, (DETECTIONS, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        said = np.where(random.random(DETECTIONS) < 0.7, labels[which], random.integers(0, NUM_CLASSES, DETECTIONS))
        predictions.append({"image_id": image_id, "boxes": near, "scores": random.random(DETECTIONS), "labels": said})
    return predictions, references


def ours(images: int) -> Work:
    """Return `CocoMetrics` from its arguments to all numbers, the table of classes included."""
    from hf_detr.evaluation import CocoMetrics

    predictions, references = results(images)
    names = [str(label) for label in range(NUM_CLASSES)]

    def work(_: Any) -> list[float]:
        found = CocoMetrics(class_names=names, keep_in_memory=True).compute(
            predictions=predictions, references=references
        )
        return [value for name, value in found.items() if name != "per_class"]

    return work


def coco_files(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the predictions and references in the formats of COCO."""
    predictions, references = results(images)
    annotations, detections = [], []
    for prediction, reference in zip(predictions, references, strict=True):
        for (x0, y0, x1, y1), label, area in zip(
            reference["boxes"].tolist(), reference["labels"].tolist(), reference["area"].tolist(), strict=True
        ):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": reference["image_id"], "category_id": label, "iscrowd": 0}
                | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area}
            )
        for (x0, y0, x1, y1), label, score in zip(
            prediction["boxes"].tolist(), prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True
        ):
            detection = {"image_id": prediction["image_id"], "category_id": label, "score": score}
            detections.append(detection | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    categories = [{"id": label, "name": str(label)} for label in range(NUM_CLASSES)]
    pictures = [{"id": reference["image_id"]} for reference in references]
    return {"images": pictures, "categories": categories, "annotations": annotations, "info": {}}, detections


def faster_coco_eval(images: int) -> Work:
    """Return the library below `CocoMetrics`, called directly."""
    from faster_coco_eval import COCO, COCOeval_faster

    dataset, detections = coco_files(images)

    def work(_: Any) -> list[float]:
        coco = COCO(dataset)
        evaluation = COCOeval_faster(coco, coco.loadRes([dict(found) for found in detections]), iouType="bbox")
        evaluation.run()
        return [float(value) for value in evaluation.stats[:12]]

    return work


def pycocotools(images: int) -> Work:
    """Return the original, with its output silenced."""
    require("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, detections = coco_files(images)

    def work(_: Any) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = dataset
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes([dict(found) for found in detections]), iouType="bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(value) for value in evaluation.stats]

    return work
