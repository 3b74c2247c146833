"""Augments images as published with DETR, at any target size."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

PUBLISHED_SIZE = 800
"""The shortest edge of the published recipe (facebookresearch/detr), from which the fractions below are taken."""
RESIZE_FRACTIONS = tuple(size / PUBLISHED_SIZE for size in range(480, 801, 32))
BEFORE_CROP_FRACTIONS = tuple(size / PUBLISHED_SIZE for size in (400, 500, 600))
CROP_FRACTIONS = (384 / PUBLISHED_SIZE, 600 / PUBLISHED_SIZE)
PUBLISHED_FLIP = 0.5


Picture = TypeVar("Picture", Image.Image, torch.Tensor)


class RandomResize:
    """Resize to a shortest edge out of several, the longest one bounded.

    Args:
        edges: the sizes of the shortest edge to draw from, in pixels.
        longest_edge: the bound of the longest edge in pixels; none by default.
    """

    def __init__(self, edges: Sequence[int], longest_edge: float = math.inf):
        self.edges, self.longest_edge = list(edges), longest_edge

    def draw_size(self, image: Any) -> tuple[int, int]:
        """Draw the (height, width) of an image; however narrow it is, neither is 0."""
        height, width = functional.get_size(image)
        edge = self.edges[_randint(0, len(self.edges) - 1)]
        scale = min(edge / min(height, width), self.longest_edge / max(height, width))
        # The edge drawn is met in spite of rounding: 100 * (29 / 100) is a little less than 29.
        return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Resize an image and its target."""
        return moved(functional.resize, image, target, size=list(self.draw_size(image)))


class RandomSizeCrop:
    """Crop a rectangle at a random place, its width and height drawn separately between two bounds.

    Args:
        minimum, maximum: bounds of each side in pixels; an image smaller than a bound keeps that side.
    """

    def __init__(self, minimum: int, maximum: int):
        self.minimum, self.maximum = minimum, maximum

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Crop an image and its target."""
        height, width = functional.get_size(image)
        crop_height, crop_width = self._side(height), self._side(width)
        top, left = _randint(0, height - crop_height), _randint(0, width - crop_width)
        return moved(functional.crop, image, target, top=top, left=left, height=crop_height, width=crop_width)

    def _side(self, length: int) -> int:
        return _randint(min(self.minimum, length), min(self.maximum, length))


class DetrAugmentation:
    """Flip half of the images; then either resize to a random size, or resize, crop and resize.

    The recipe is the one published with DETR for a shortest edge of 800 pixels and a longest of 1333; other targets
    scale all its sizes in proportion. Randomness comes from torch's global generator.

    Args:
        shortest_edge: the largest size of the shortest edge after augmentation, in pixels.
        longest_edge: the bound of the longest edge after augmentation, in pixels.
    """

    def __init__(self, shortest_edge: int, longest_edge: int):
        if not 0 < shortest_edge <= longest_edge:
            raise ValueError(
                f"expected 0 < shortest_edge <= longest_edge, got shortest_edge={shortest_edge} and "
                f"longest_edge={longest_edge}"
            )
        self.shortest_edge, self.longest_edge = shortest_edge, longest_edge
        self.least_edge = shortest_edge  # images may be decoded at this size, see DetectionCollator

        def scaled(fractions: tuple[float, ...]) -> list[int]:
            return [max(1, round(fraction * shortest_edge)) for fraction in fractions]

        self.resize = RandomResize(scaled(RESIZE_FRACTIONS), longest_edge)
        self.crop = (RandomResize(scaled(BEFORE_CROP_FRACTIONS)), RandomSizeCrop(*scaled(CROP_FRACTIONS)), self.resize)

    def __call__(self, image: Picture, target: dict[str, Any]) -> tuple[Picture, dict[str, Any]]:
        """Augment an image and its target together.

        Args:
            image: a PIL image or a uint8 tensor (3, H, W).
            target: `boxes` (T, 4) as `tv_tensors.BoundingBoxes` in xyxy pixels, `labels` (T,) and, as wanted, `masks`
                (T, H, W) as `tv_tensors.Mask`, `area` (T,) and other tensors with one entry per object.

        Returns:
            the image and the target at their new size. Objects of which less than a pixel is left are gone;
            `area` is scaled as the area of the object's box.
        """
        image, target = self.resize_or_crop(image, area_as_share(target))
        if torch.rand(()) < PUBLISHED_FLIP:  # it comes last, because the image is small by now
            image, target = moved(functional.horizontal_flip, image, target)
        return image, share_as_area(without_lost_objects(target))

    def resize_or_crop(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Resize to a random size; or, every other time, resize, crop and resize."""
        for step in (self.resize,) if torch.rand(()) < 0.5 else self.crop:
            image, target = step(image, target)
        return image, target


def moved(
    operation: Callable[..., Any], image: Any, target: dict[str, Any], **arguments: Any
) -> tuple[Any, dict[str, Any]]:
    """Apply a functional of torchvision to an image, its boxes and its masks.

    The transforms of torchvision do the same, but look through the whole target each time, which costs as much.
    """
    places = {name: operation(target[name], **arguments) for name in ("boxes", "masks") if name in target}
    return operation(image, **arguments), target | places


def without_lost_objects(target: dict[str, Any]) -> dict[str, Any]:
    """Return the target with boxes clipped to the image, without those that are less than a pixel wide or high."""
    # Rounding may leave a box just beyond the border, where it would be dropped.
    boxes, kept = functional.sanitize_bounding_boxes(functional.clamp_bounding_boxes(target["boxes"]))
    if not kept.all():
        target = {name: value[kept] for name, value in target.items()}
    masks = {"masks": tv_tensors.Mask(target["masks"])} if "masks" in target else {}  # indexing lost their type
    return target | masks | {"boxes": boxes}


def area_as_share(target: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the target whose `area` is the share of the object in its box: no resize or crop changes it."""
    if "area" not in target:
        return dict(target)
    return target | {"area": target["area"] / box_areas(target["boxes"]).clamp(min=1e-6)}


def share_as_area(target: dict[str, Any]) -> dict[str, Any]:
    """Undo `area_as_share`, for boxes that may have changed since then."""
    if "area" not in target:
        return target
    return target | {"area": target["area"] * box_areas(target["boxes"])}


def box_areas(boxes: torch.Tensor) -> torch.Tensor:
    """Return the areas (T,) of boxes (T, 4) in xyxy."""
    left, top, right, bottom = boxes.as_subclass(torch.Tensor).unbind(-1)
    return (right - left) * (bottom - top)


def _randint(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))
