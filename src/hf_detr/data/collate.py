"""Makes the batch that a model takes of rows of a data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from hf_detr.processing.annotations import ImageObjects

from .images import check_decoded_size, decode_image
from .schema import locate

Augmentation = Callable[[torch.Tensor, dict[str, Any]], tuple[torch.Tensor, dict[str, Any]]]


class DetectionCollator:
    """Turn a list of rows of the schema into `{"pixel_values", "pixel_mask", "labels"}`.

    It runs inside the workers of a `DataLoader`. All randomness is the augmentation's, drawn from torch's generator,
    which a `DataLoader` seeds in each worker: the same seed and number of workers give the same batches.

    Give it rows of `undecoded(dataset)`: then it decodes the images itself, and a broken one raises a `DataError`
    that names the file and the image id.

    Args:
        image_processor: a `HfDetrImageProcessor`.
        augmentation: maps an image, uint8 (3, H, W), and a target with `boxes` (tv_tensors, xyxy), `labels`, `area`
            and `iscrowd` to the same, already at its final size unless the image processor has a fixed one. It also
            gets `masks` (tv_tensors, (T, H, W)) if it has an attribute `uses_masks` that is true and the data has
            them. Images may be smaller than in their file, but no edge is shorter than its attribute `least_edge`, if
            it has one. With None the image processor resizes.
        masks: whether the labels get `masks` (T, H, W), bool, of the padded image. They need much memory, and only
            models that segment need them.
    """

    def __init__(self, image_processor: Any, augmentation: Augmentation | None = None, masks: bool = False):
        self.image_processor = image_processor
        # A processor with one fixed size resizes again after the augmentation.
        self.resizes = augmentation is None or "shortest_edge" not in dict(image_processor.size)
        self.augmentation = augmentation
        self.masks = masks

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; `labels` is a list of dicts of tensors, one per image.

        Raises:
            DataError: an image or a mask cannot be decoded, or masks are asked for where the data has none.
        """
        load_masks = self.masks or getattr(self.augmentation, "uses_masks", False)
        least_edge = getattr(self.augmentation, "least_edge", None)
        images, annotations, targets = [], [], []
        for row in rows:
            pixels, target = load_example(row, load_masks, least_edge)
            if self.augmentation is not None:
                pixels, target = self.augmentation(pixels, target)
            if self.masks and "masks" not in target:
                raise locate(
                    "expected a mask of the objects, found none", None, row["image_id"], None, "instance_mask"
                )
            images.append(pixels)
            annotations.append(image_objects(row["image_id"], target))
            targets.append(target)
        batch = self.image_processor(
            images=images, annotations=annotations, do_resize=self.resizes, return_tensors="pt"
        )
        if self.masks:
            for label, target in zip(batch["labels"], targets, strict=True):
                label["masks"] = padded_masks(target, label["size"].tolist(), batch["pixel_values"].shape[2:])
        return {name: batch[name] for name in ("pixel_values", "pixel_mask", "labels")}


def load_example(
    row: Mapping[str, Any], masks: bool = False, least_edge: int | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Decode a row: its image, uint8 (3, H, W), and its target as of `detection_target`, with masks if asked for.

    With `least_edge` both may be smaller than in the file, see `decode_image`, unless masks are asked for.

    Raises:
        DataError: the image cannot be decoded, or has another size than the row says.
    """
    masks = masks and row.get("instance_mask") is not None
    image = decode_image(row["image"], row["image_id"], None if masks else least_edge)
    check_decoded_size(image, row, reduced=least_edge is not None and not masks)
    target = detection_target(row, image)
    if masks:
        target["masks"] = instance_masks(row)
    return functional.pil_to_tensor(image), target


def instance_masks(row: Mapping[str, Any]) -> tv_tensors.Mask:
    """Return the masks (T, H, W), bool, of the objects of a row with an `instance_mask`.

    Raises:
        DataError: the mask cannot be decoded.
    """
    picture = row["instance_mask"]
    if isinstance(picture, dict):
        try:
            picture = datasets.Image().decode_example(picture)
        except (OSError, SyntaxError, ValueError) as error:
            source = row["instance_mask"].get("path") or "embedded image"
            raise locate(f"cannot be decoded ({error})", source, row["image_id"], field="instance_mask") from error
    instances = torch.from_numpy(np.asarray(picture).astype(np.int32))
    numbers = torch.arange(1, len(row["objects"]["bbox"]) + 1, dtype=torch.int32)
    return tv_tensors.Mask(instances == numbers[:, None, None])


def detection_target(row: Mapping[str, Any], image: Image.Image) -> dict[str, Any]:
    """Return the objects of a row as tensors.

    These are `boxes` (T, 4) in xyxy pixels and, each (T,), `labels`, `area`, `iscrowd` and `ids`, which tell the
    objects of all images apart: their own numbers may begin anew with each image.

    Boxes and areas fit the image given, which may have been decoded at a smaller size than the row says.
    """
    objects = row["objects"]
    boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    area = torch.tensor(objects["area"], dtype=torch.float32)
    if image.size != (row["width"], row["height"]):
        scale = torch.tensor([image.width / row["width"], image.height / row["height"]])
        boxes *= scale.repeat(2)
        area *= scale.prod()
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width)),
        "labels": torch.tensor(objects["category"], dtype=torch.int64),
        "area": area,
        "iscrowd": torch.tensor(objects["iscrowd"], dtype=torch.int64),
        # The hash of a tuple of integers is the same in every process and run.
        "ids": torch.tensor([hash((row["image_id"], number)) for number in objects["id"]], dtype=torch.int64),
    }


def padded_masks(target: Mapping[str, torch.Tensor], size: Sequence[int], canvas: Sequence[int]) -> torch.Tensor:
    """Return the masks (T, H, W) of the objects, without crowds as in labels, resized and padded like their image."""
    masks = target["masks"].as_subclass(torch.Tensor)[target["iscrowd"] == 0]
    if tuple(masks.shape[1:]) != tuple(size):
        masks = functional.resize(tv_tensors.Mask(masks), list(size)).as_subclass(torch.Tensor)
    return functional.pad(masks, [0, 0, canvas[1] - size[1], canvas[0] - size[0]])


def image_objects(image_id: int, target: Mapping[str, torch.Tensor]) -> ImageObjects:
    """Return a target as the annotation of which the image processor makes labels."""
    corners = target["boxes"].as_subclass(torch.Tensor)
    return ImageObjects(
        image_id,
        boxes=torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1),
        class_labels=target["labels"],
        area=target["area"],
        iscrowd=target["iscrowd"],
        ids=target["ids"],
    )
