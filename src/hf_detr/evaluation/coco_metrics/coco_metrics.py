"""COCO detection metrics as an `evaluate` module.

The file stands alone, so that `evaluate.load("<folder of this file>")` can copy and import it by itself.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

_DESCRIPTION = """\
Average precision and recall of object detections as COCO defines them: IoU from 0.50 to 0.95 in steps of 0.05,
101 recall points, at most 100 detections an image, objects split by area at 32x32 and 96x96 pixels, crowd regions
neither rewarded nor punished. Computed by faster-coco-eval; equal to pycocotools.
"""

_INPUTS_DESCRIPTION = """
Args:
    predictions: one dict an image, empty lists where nothing was detected: `image_id` (int), `boxes` (N, 4) as
        (x0, y0, x1, y1) in pixels, `scores` (N,), `labels` (N,) in 0..K-1.
    references: one dict an image, in any order: `image_id` (int), `boxes` (N, 4) as above, `labels` (N,),
        `area` (N,) in square pixels, which decides between small, medium and large, `iscrowd` (N,) of 0 or 1.
Returns:
    A dict of floats in 0..1: `AP`, `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large`, `AR_1`, `AR_10`, `AR_100`,
    `AR_small`, `AR_medium`, `AR_large`; and `per_class`, {class name: {`AP`, `AP50`, `AR_100`, `num_objects`}},
    where `num_objects` counts the objects that are not crowds. A value is -1, as COCO has it, where no reference
    object exists to measure it on.
Raises:
    ValueError: an image given twice, a prediction for an unknown image, a label outside the classes, a box that is
        not finite or has its corners swapped, fields of different lengths.
"""

_CITATION = """\
@inproceedings{lin2014coco,
  title = {Microsoft COCO: Common Objects in Context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva
            and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {ECCV},
  year = {2014}
}
"""

# In the order of COCO's own summary.
SUMMARY_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


class CocoMetrics(evaluate.Metric):
    """COCO detection metrics; see `inputs_description` for what `compute` takes and returns.

    Args:
        class_names: the name of each label 0..K-1, without duplicates. Without it the labels that occur are the
            classes, and the numbers are their names.
        *args: passed to `evaluate.Metric`.
        **kwargs: passed to `evaluate.Metric`, for example `keep_in_memory`, `num_process` or `experiment_id`.
    """

    def __init__(self, *args: Any, class_names: Sequence[str] | None = None, **kwargs: Any):
        if class_names is not None and len(set(class_names)) != len(class_names):
            raise ValueError(f"class_names must not repeat a name, got {list(class_names)}")
        self.class_names = None if class_names is None else list(class_names)
        super().__init__(*args, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        number_list = datasets.Sequence(datasets.Value("float64"))
        label_list = datasets.Sequence(datasets.Value("int64"))
        common = {
            "image_id": datasets.Value("int64"),
            "boxes": datasets.Sequence(number_list),
            "labels": label_list,
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {**common, "scores": number_list},
                    "references": {**common, "area": number_list, "iscrowd": label_list},
                }
            ),
            reference_urls=["https://cocodataset.org/#detection-eval"],
        )

    def _compute(self, predictions: Sequence[dict], references: Sequence[dict]) -> dict[str, Any]:
        names = self.class_names
        if names is None:
            labels = [label for image in (*predictions, *references) for label in image["labels"]]
            names = [str(label) for label in range(max(labels, default=-1) + 1)]

        annotations = _annotations("references", references, len(names), {"area": "area", "iscrowd": "iscrowd"})
        detections = _annotations("predictions", predictions, len(names), {"score": "scores"})
        _check_images(predictions, references)

        coco = COCO(
            {
                "images": [{"id": image["image_id"]} for image in references],
                "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
                "annotations": annotations,
            }
        )
        evaluation = COCOeval_faster(coco, coco.loadRes(detections), iouType="bbox")
        evaluation.run()
        result: dict[str, Any] = dict(zip(SUMMARY_NAMES, map(float, evaluation.stats), strict=True))
        result["per_class"] = _per_class(evaluation.eval, names, annotations)
        return result


def _check_images(predictions: Sequence[dict], references: Sequence[dict]) -> None:
    known = _image_ids("references", references)
    unknown = sorted(_image_ids("predictions", predictions) - known)
    if unknown:
        raise ValueError(f"predictions: image_id {unknown[0]} is not among the {len(known)} images of the references")


def _image_ids(source: str, images: Sequence[dict]) -> set[int]:
    seen: set[int] = set()
    for image in images:
        if image["image_id"] in seen:
            raise ValueError(f"{source}: image_id {image['image_id']} is given more than once")
        seen.add(image["image_id"])
    return seen


def _annotations(source: str, images: Sequence[dict], num_classes: int, fields: dict[str, str]) -> list[dict]:
    """Return COCO annotation dicts of all images; `fields` maps COCO's names to ours."""
    annotations: list[dict] = []
    for image in images:
        place = f"{source}, image_id {image['image_id']}"
        boxes = _checked_boxes(place, image["boxes"])
        for name in ("labels", *fields.values()):
            _check_column(place, name, image[name], len(boxes))
        _check_labels(place, image["labels"], num_classes)
        # (x0, y0, x1, y1) -> (x, y, width, height)
        boxes[:, 2:] -= boxes[:, :2]
        for row, (bbox, label) in enumerate(zip(boxes.tolist(), image["labels"], strict=True)):
            annotation = {coco_name: image[name][row] for coco_name, name in fields.items()}
            # Ids count from 1: COCO's matching takes 0 for "no match".
            annotation |= {
                "id": len(annotations) + 1,
                "image_id": image["image_id"],
                "category_id": label,
                "bbox": bbox,
            }
            annotations.append(annotation)
    return annotations


def _checked_boxes(place: str, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return boxes (N, 4) float64 that are finite and have x0 <= x1, y0 <= y1."""
    for box in boxes:
        if len(box) != 4:
            raise ValueError(f"{place}: boxes must have 4 numbers (x0, y0, x1, y1), got {len(box)}")
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(array).all():
        raise ValueError(f"{place}: boxes must be finite numbers, got {_first_row(array, ~np.isfinite(array))}")
    swapped = array[:, 2:] < array[:, :2]
    if swapped.any():
        raise ValueError(
            f"{place}: boxes must be (x0, y0, x1, y1) with x0 <= x1, y0 <= y1, got {_first_row(array, swapped)}"
        )
    return array


def _first_row(array: np.ndarray, wrong: np.ndarray) -> list[float]:
    return array[np.flatnonzero(wrong.any(axis=1))[0]].tolist()


def _check_column(place: str, name: str, values: Sequence[float], num_boxes: int) -> None:
    if len(values) != num_boxes:
        raise ValueError(f"{place}: {num_boxes} boxes but {len(values)} values of {name}")
    if not np.isfinite(np.array(values, dtype=np.float64)).all():
        raise ValueError(f"{place}: {name} must be finite numbers, got {values}")


def _check_labels(place: str, labels: Sequence[int], num_classes: int) -> None:
    for label in labels:
        if not 0 <= label < num_classes:
            raise ValueError(f"{place}: label {label} is outside 0..{num_classes - 1}")


def _per_class(evaluation: dict[str, Any], names: list[str], annotations: list[dict]) -> dict[str, dict[str, float]]:
    """Return the class table of one evaluation over all areas and at most 100 detections an image."""
    # (IoU thresholds, recall points, classes) and (IoU thresholds, classes)
    precision = evaluation["precision"][:, :, :, 0, -1]
    recall = evaluation["recall"][:, :, 0, -1]
    num_objects = [0] * len(names)
    for annotation in annotations:
        num_objects[annotation["category_id"]] += not annotation["iscrowd"]
    return {
        name: {
            "AP": _mean(precision[:, :, label]),
            "AP50": _mean(precision[0, :, label]),
            "AR_100": _mean(recall[:, label]),
            "num_objects": num_objects[label],
        }
        for label, name in enumerate(names)
    }


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
