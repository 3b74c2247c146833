"""From rows of a data set to the batch that the model takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from .images import decode_image

Augmentation = Callable[[torch.Tensor, dict[str, Any]], tuple[torch.Tensor, dict[str, Any]]]


class DetectionCollator:
    """Turn a list of rows of the schema into `{"pixel_values", "pixel_mask", "labels"}`.

    It runs inside the workers of a `DataLoader`. All randomness is the augmentation's, drawn from torch's generator,
    which a `DataLoader` seeds in each worker: the same seed and number of workers give the same batches.

    Give it rows of `undecoded(dataset)`: then it decodes the images itself, and a broken one raises a `DataError`
    that names the file and the image id.

    Args:
        image_processor: an image processor that takes COCO detection annotations.
        augmentation: maps an image, uint8 (3, H, W), and a target with `boxes` (tv_tensors, xyxy), `labels`, `area`
            and `iscrowd` to the same, already at its final size. None: the image processor resizes.
    """

    def __init__(self, image_processor: Any, augmentation: Augmentation | None = None):
        self.image_processor = image_processor
        self.augmentation = augmentation

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; `labels` is a list of dicts of tensors, one per image.

        Raises:
            DataError: an image cannot be decoded.
        """
        images, annotations = [], []
        for row in rows:
            image = decode_image(row["image"], row["image_id"])
            target = detection_target(row, image)
            pixels = functional.pil_to_tensor(image)
            if self.augmentation is not None:
                pixels, target = self.augmentation(pixels, target)
            images.append(pixels)
            annotations.append(coco_annotation(row["image_id"], target))
        batch = self.image_processor(
            images=images, annotations=annotations, do_resize=self.augmentation is None, return_tensors="pt"
        )
        return {name: batch[name] for name in ("pixel_values", "pixel_mask", "labels")}


def detection_target(row: Mapping[str, Any], image: Image.Image) -> dict[str, Any]:
    """Return the objects of a row as tensors: `boxes` (T, 4) in xyxy pixels, `labels`, `area` and `iscrowd` (T,)."""
    objects = row["objects"]
    boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width)),
        "labels": torch.tensor(objects["category"], dtype=torch.int64),
        "area": torch.tensor(objects["area"], dtype=torch.float32),
        "iscrowd": torch.tensor(objects["iscrowd"], dtype=torch.int64),
    }


def coco_annotation(image_id: int, target: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return a target as the COCO detection annotation of one image, boxes as (x, y, width, height)."""
    boxes = target["boxes"].as_subclass(torch.Tensor).clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns = (boxes.tolist(), *(target[name].tolist() for name in ("labels", "area", "iscrowd")))
    names = ("bbox", "category_id", "area", "iscrowd")
    objects = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return {"image_id": image_id, "annotations": objects}
