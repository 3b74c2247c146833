"""The training augmentation published with DETR, at any target size."""

from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

PUBLISHED_SIZE = 800
"""The shortest edge of the published recipe (facebookresearch/detr), from which the fractions below are taken."""
RESIZE_FRACTIONS = tuple(size / PUBLISHED_SIZE for size in range(480, 801, 32))
BEFORE_CROP_FRACTIONS = tuple(size / PUBLISHED_SIZE for size in (400, 500, 600))
CROP_FRACTIONS = (384 / PUBLISHED_SIZE, 600 / PUBLISHED_SIZE)


class RandomSizeCrop(v2.Transform):
    """Crop a rectangle at a random place, its width and height drawn separately between two bounds.

    Args:
        minimum, maximum: bounds of each side in pixels; an image smaller than a bound keeps that side.
    """

    def __init__(self, minimum: int, maximum: int):
        super().__init__()
        self.minimum, self.maximum = minimum, maximum

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle."""
        height, width = v2.query_size(flat_inputs)
        crop_height, crop_width = self._side(height), self._side(width)
        top, left = _randint(0, height - crop_height), _randint(0, width - crop_width)
        return {"top": top, "left": left, "height": crop_height, "width": crop_width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop one image, mask or set of boxes."""
        return self._call_kernel(functional.crop, inpt, **params)

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
        self.least_edge = shortest_edge  # more is not needed of an image; see DetectionCollator

        def scaled(fractions: tuple[float, ...]) -> list[int]:
            return [max(1, round(fraction * shortest_edge)) for fraction in fractions]

        resize = v2.RandomShortestSize(scaled(RESIZE_FRACTIONS), max_size=longest_edge)
        crop = v2.Compose(
            [
                v2.RandomShortestSize(scaled(BEFORE_CROP_FRACTIONS)),
                RandomSizeCrop(*scaled(CROP_FRACTIONS)),
                resize,
            ]
        )
        self.resize = resize
        self.resize_or_crop = v2.RandomChoice([resize, crop])
        self.flip = v2.RandomHorizontalFlip()

    def __call__(
        self, image: Image.Image | torch.Tensor, target: dict[str, Any]
    ) -> tuple[Image.Image | torch.Tensor, dict[str, Any]]:
        """Augment an image and its target together.

        Args:
            image: a PIL image or a uint8 tensor (3, H, W).
            target: `boxes` (T, 4) as `tv_tensors.BoundingBoxes` in xyxy pixels, `labels` (T,) and, as wanted, `masks`
                (T, H, W) as `tv_tensors.Mask`, `area` (T,) and other tensors with one entry per object.

        Returns:
            the image and the target at their new size. Objects of which less than a pixel is left are gone;
            `area` is scaled as the area of the object's box.
        """
        image, target = self.flip(image, area_as_share(target))
        image, target = self.resize_or_crop(image, target)
        return image, share_as_area(without_lost_objects(image, target))


def without_lost_objects(image: Image.Image | torch.Tensor, target: dict[str, Any]) -> dict[str, Any]:
    """Return the target with boxes clipped to the image, without those that are less than a pixel wide or high."""
    # Rounding may leave a box just beyond the border: it would be dropped.
    _, target = _CLAMP(image, target)
    _, target = _SANITIZE(image, target)
    return target


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


def _per_object_tensors(inputs: tuple[Any, dict[str, Any]]) -> list[torch.Tensor]:
    _, target = inputs
    return [value for name, value in target.items() if name not in ("boxes", "masks")]


_CLAMP = v2.ClampBoundingBoxes()
_SANITIZE = v2.SanitizeBoundingBoxes(labels_getter=_per_object_tensors)


def _randint(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))
