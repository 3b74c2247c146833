"""Reads COCO annotations into tensors, and makes the labels of a batch of them.

Shapes: B images, N objects of the whole batch, T of one image, H and W the padded batch. Sizes are (height, width).
"""

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert


@dataclass(frozen=True)
class ImageObjects:
    """The objects of one image as tensors on the CPU: an annotation that has been read.

    Attributes:
        image_id: the number of the image.
        boxes: (T, 4), left, top, width and height in pixels of the displayed image, finite.
        class_labels: (T,) int64, 0..K-1.
        area: (T,), in pixels.
        iscrowd: (T,), 0 or 1.
        ids: (T,) int64, the numbers of the objects, -1 for none.
        segmentations: the polygons or run lengths of each object, which are only looked at where masks are asked for.
    """

    image_id: int
    boxes: Tensor
    class_labels: Tensor
    area: Tensor
    iscrowd: Tensor
    ids: Tensor
    segmentations: Sequence[Any] | None = None


class Geometry(NamedTuple):
    """The sizes of one image: as displayed, resized, and padded."""

    original: tuple[int, int]
    resized: tuple[int, int]
    canvas: tuple[int, int]


def read_annotations(annotations: Any, num_images: int) -> list[ImageObjects]:
    """Check the annotations of a batch, which are in the COCO detection format unless they have been read already.

    Raises:
        ValueError: the annotations are not as `HfDetrImageProcessor.preprocess` describes; the message names image and
            object.
    """
    if isinstance(annotations, Mapping | ImageObjects):
        annotations = [annotations]
    if not isinstance(annotations, list | tuple):
        raise ValueError(f"annotations: expected a dictionary or a list of them, got {type(annotations).__name__}.")
    if len(annotations) != num_images:
        raise ValueError(f"annotations: expected one per image, got {len(annotations)} for {num_images} image(s).")
    return [
        annotation if isinstance(annotation, ImageObjects) else _read_annotation(annotation, f"annotations[{index}]")
        for index, annotation in enumerate(annotations)
    ]


def make_labels(
    objects: Sequence[ImageObjects], geometry: Sequence[Geometry], with_masks: bool, device: torch.device
) -> list[dict[str, Tensor]]:
    """Return the labels of each image. They are computed for the whole batch at once, so a field shares its memory.

    Raises:
        ValueError: a box lies wholly outside its image, or a segmentation cannot be read.
    """
    counts = [len(item.boxes) for item in objects]
    images = torch.repeat_interleave(torch.arange(len(objects)), torch.tensor(counts))
    original, resized = (
        torch.tensor([getattr(sizes, name) for sizes in geometry]) for name in ("original", "resized")
    )
    borders = original.flip(1).repeat(1, 2)[images].double()
    boxes, area = (torch.cat([getattr(item, name) for item in objects]).double() for name in ("boxes", "area"))
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    corners = torch.minimum(corners.clamp(min=0), borders)

    counted = torch.cat([item.iscrowd for item in objects]) == 0
    extended = (boxes[:, 2:] > 0).all(1)
    kept = counted & extended
    outside = kept & (corners[:, :2] >= corners[:, 2:]).any(1)
    if outside.any():
        raise _outside(int(outside.nonzero()[0]), objects, images, original)
    _warn_of_degenerate(images[counted & ~extended], objects)

    images = images[kept]
    num_kept = torch.bincount(images, minlength=len(objects)).tolist()
    columns = {
        "class_labels": torch.cat([item.class_labels for item in objects])[kept],
        "boxes": box_convert(corners[kept] / borders[kept], "xyxy", "cxcywh").float(),
        "area": (area[kept] * resized.prod(1)[images] / original.prod(1)[images]).float(),
        "iscrowd": torch.zeros(len(images), dtype=torch.int64),
        "annotation_ids": torch.cat([item.ids for item in objects])[kept],
    }
    columns = {name: column.to(device).split(num_kept) for name, column in columns.items()}
    columns |= {
        "size": resized.to(device).unbind(),
        "image_id": torch.tensor([[item.image_id] for item in objects], device=device).unbind(),
        "orig_size": original.to(device).unbind(),
        # A scalar on purpose: accelerate cuts the first axis of every tensor of a short last batch, also inside the
        # labels of an image, unless a tensor without axes stops it (`Accelerator.gather_for_metrics`).
        "num_objects": torch.tensor(num_kept, device=device).unbind(),
    }
    if with_masks:
        columns["masks"] = [
            _masks(index, item, image_kept, sizes).to(device)
            for index, (item, image_kept, sizes) in enumerate(zip(objects, kept.split(counts), geometry, strict=True))
        ]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# --- reading


def _read_annotation(annotation: Any, name: str) -> ImageObjects:
    """Check the annotation of one image."""
    if not isinstance(annotation, Mapping):
        raise ValueError(f"{name}: expected a dictionary, got {type(annotation).__name__}.")
    for field in ("image_id", "annotations"):
        if field not in annotation:
            raise ValueError(f"{name} (image_id {annotation.get('image_id')}): the field {field!r} is missing.")
    image_id = _integer(annotation["image_id"], f"{name}: image_id")
    where = f"{name} (image_id {image_id})"
    items = annotation["annotations"]
    if not isinstance(items, list | tuple):
        raise ValueError(f"{where}: 'annotations' must be a list of objects, got {type(items).__name__}.")
    columns = _plain_columns(items)
    if columns is None:  # something is wrong, or given in numbers other than Python's
        items = [_read_object(item, f"{where}, object {index}") for index, item in enumerate(items)]
        columns = _plain_columns(items)
        assert columns is not None  # every object has just been read
    return ImageObjects(image_id, **columns, segmentations=[item.get("segmentation") for item in items])


def _plain_columns(items: Sequence[Any]) -> dict[str, Tensor] | None:
    """Return the fields of all objects, or None where an object is wrong or not made of Python's own numbers."""
    try:
        boxes, categories, areas = ([item[name] for item in items] for name in ("bbox", "category_id", "area"))
        crowds, ids = ([item.get(name, default) for item in items] for name, default in (("iscrowd", 0), ("id", -1)))
        coordinates = list(chain.from_iterable(boxes))
        fits = (
            set(map(type, boxes)) <= {list, tuple}
            and set(map(len, boxes)) <= {4}
            and set(map(type, chain(coordinates, areas))) <= {int, float}
            and set(map(type, chain(categories, ids))) <= {int}
            and set(map(type, crowds)) <= {int, bool}
            and set(crowds) <= {0, 1}
            and min(categories, default=0) >= 0
        )
        if not fits:
            return None
        columns = {
            "boxes": torch.tensor(coordinates, dtype=torch.float64).reshape(-1, 4),
            "class_labels": torch.tensor(categories, dtype=torch.int64),
            "area": torch.tensor(areas, dtype=torch.float64),
            "iscrowd": torch.tensor(crowds, dtype=torch.int64),
            "ids": torch.tensor(ids, dtype=torch.int64),
        }
    except (AttributeError, KeyError, TypeError, OverflowError, RuntimeError):
        return None
    is_finite = columns["boxes"].isfinite().all() and columns["area"].isfinite().all()
    return columns if is_finite and (columns["area"] >= 0).all() else None


def _read_object(item: Any, where: str) -> dict[str, Any]:
    """Check one object the slow way, for an error that names the field; it is returned in Python's numbers."""
    if not isinstance(item, Mapping):
        raise ValueError(f"{where}: expected a dictionary, got {type(item).__name__}.")
    for field in ("bbox", "category_id", "area"):
        if field not in item:
            raise ValueError(f"{where}: the field {field!r} is missing.")
    category = _integer(item["category_id"], f"{where}: category_id")
    if category < 0:
        raise ValueError(f"{where}: category_id must not be negative, got {category}.")
    area = float(_numbers(item["area"], (), f"{where}: area"))
    if area < 0:
        raise ValueError(f"{where}: area must not be negative, got {area}.")
    if item.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {item['iscrowd']!r}.")
    return {
        "bbox": _numbers(item["bbox"], (4,), f"{where}: bbox").tolist(),
        "category_id": category,
        "area": area,
        "iscrowd": bool(item.get("iscrowd", 0)),
        "id": _integer(item.get("id", -1), f"{where}: id"),
        "segmentation": item.get("segmentation"),
    }


def _integer(value: Any, where: str) -> int:
    try:
        if not isinstance(value, bool):
            number = operator.index(value)
            if -(2**63) <= number < 2**63:
                return number
    except TypeError:
        pass
    raise ValueError(f"{where} must be an integer, got {value!r}.")


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    expected = f"{shape[0]} finite numbers" if shape else "a finite number"
    try:
        array = np.asarray(value)
        if array.shape == shape and array.dtype.kind in "iuf" and np.isfinite(array).all():
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{where} must be {expected}, got {value!r}.")


# --- problems


def _outside(position: int, objects: Sequence[ImageObjects], images: Tensor, original: Tensor) -> ValueError:
    """Return the error for the object at this position of the batch."""
    image = int(images[position])
    number = position - int((images < image).sum())
    height, width = original[image].tolist()
    return ValueError(
        f"annotations[{image}] (image_id {objects[image].image_id}), object {number}: bbox "
        f"{objects[image].boxes[number].tolist()} (left, top, width, height) lies wholly outside the image of height "
        f"{height} and width {width} (as displayed, after any EXIF rotation)."
    )


def _warn_of_degenerate(images: Tensor, objects: Sequence[ImageObjects]) -> None:
    if len(images):
        image_ids = [objects[image].image_id for image in images.unique().tolist()]
        warnings.warn(
            f"{len(images)} box(es) without width or height were dropped, in image_id {image_ids[:10]}"
            f"{' and others' if len(image_ids) > 10 else ''}.",
            stacklevel=2,
        )


# --- masks


def _masks(index: int, objects: ImageObjects, kept: Tensor, sizes: Geometry) -> Tensor:
    """Return the masks (T, H, W) bool of the objects that are kept."""
    numbers = kept.nonzero().flatten().tolist()
    if not numbers:
        return torch.zeros((0, *sizes.canvas), dtype=torch.bool)
    where = f"annotations[{index}] (image_id {objects.image_id}), object"
    segmentations = objects.segmentations or [None] * len(kept)
    masks = [_rasterise(segmentations[n], *sizes.original, f"{where} {n}: segmentation") for n in numbers]
    stacked = F.interpolate(torch.from_numpy(np.stack(masks))[None], size=sizes.resized, mode="nearest-exact")[0]
    right, bottom = (sizes.canvas[axis] - sizes.resized[axis] for axis in (1, 0))
    return F.pad(stacked, (0, right, 0, bottom)).bool()


def _rasterise(segmentation: Any, height: int, width: int, where: str) -> np.ndarray:
    """Return the mask (h, w) uint8 of COCO polygons or run lengths."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ImportError("return_segmentation_masks=True needs pycocotools: pip install pycocotools") from error
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size", [])) != [height, width] or "counts" not in segmentation:
            raise ValueError(f"{where} must be run lengths of size {[height, width]}, got {segmentation!r}.")
        run_lengths: Any = segmentation  # pycocotools looks into it
        is_compressed = isinstance(run_lengths["counts"], str | bytes)
        try:
            return coco_mask.decode(
                run_lengths if is_compressed else coco_mask.frPyObjects(run_lengths, height, width)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} does not hold valid run lengths: {error}") from error
    if not isinstance(segmentation, list | tuple) or not segmentation:
        raise ValueError(f"{where} must be a list of polygons or run lengths, got {segmentation!r}.")
    for polygon in segmentation:
        if not isinstance(polygon, Sequence | np.ndarray) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"{where}: a polygon is a list of x, y for at least three points, got {polygon!r}.")
    polygons = [_numbers(polygon, (len(polygon),), where).tolist() for polygon in segmentation]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
