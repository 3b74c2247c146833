"""Applies augmentations as often as options say, and names the choices of `--augmentation`."""

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..collate import load_example
from .one_image import IoUCrop, LargeScaleJitter, PhotometricDistortion, QuarterTurn
from .published import (
    PUBLISHED_FLIP,
    DetrAugmentation,
    RandomResize,
    area_as_share,
    share_as_area,
    without_lost_objects,
)
from .several_images import TILE_EDGE, Example, copy_paste, cover, mixup, mosaic

IOU_CROP_ZOOM = 2.0
"""Images are decoded at no less than this multiple of the final size: crops down to 0.3 of a side are enlarged, and
this is sharp enough."""


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """The probability of each augmentation, of which 0 switches it off. The defaults are DETR's published recipe.

    An image gets its size in one of five ways: a mosaic, large-scale jitter, an IoU-aware crop or, where none of these
    is drawn, the published resize or crop, or else as a whole at the largest size.

    Attributes:
        resize_or_crop: the image is resized to a random size, or resized, cropped and resized, as published with DETR.
        mosaic: the image is put together with three other images (Bochkovskiy et al., 2020).
        large_scale_jitter: the image is scaled by a factor out of `jitter_scale`, then cropped or padded (Ghiasi et
            al., 2021).
        iou_crop: the image is cropped by the overlap with its objects (Liu et al., 2016).
        copy_paste: objects of another image are pasted on it (Ghiasi et al., 2021), which needs data with masks.
        mixup: the image is blended with another image (Zhang et al., 2019).
        photometric: brightness, contrast, saturation and hue are changed, each every other time (Liu et al., 2016).
        horizontal_flip: the image is mirrored.
        vertical_flip, quarter_turn: the image is turned over or by a quarter. They are for images without an up, such
            as pictures of a microscope or a satellite.
        jitter_scale: the bounds of the scale of large-scale jitter.

    Raises:
        ValueError: a probability is not between 0 and 1, the probabilities of the ways to size exceed 1 together, or
            the bounds of the scale are not 0 < least <= largest.
    """

    resize_or_crop: float = 1.0
    mosaic: float = 0.0
    large_scale_jitter: float = 0.0
    iou_crop: float = 0.0
    copy_paste: float = 0.0
    mixup: float = 0.0
    photometric: float = 0.0
    horizontal_flip: float = PUBLISHED_FLIP
    vertical_flip: float = 0.0
    quarter_turn: float = 0.0
    jitter_scale: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "jitter_scale" and not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability, between 0 and 1, got {value}")
        sizes = {name: getattr(self, name) for name in ("mosaic", "large_scale_jitter", "iou_crop")}
        if sum(sizes.values()) > 1 + 1e-6:
            raise ValueError(f"only one of them sizes an image: the sum must not exceed 1, got {sizes}")
        least, largest = self.jitter_scale
        if not 0 < least <= largest:
            raise ValueError(f"jitter_scale must be 0 < least <= largest, got {self.jitter_scale}")

    @property
    def needs_partners(self) -> bool:
        """Whether an image is combined with others."""
        return max(self.mosaic, self.copy_paste, self.mixup) > 0


AUGMENTATIONS = {
    "none": None,
    "flip": AugmentationOptions(resize_or_crop=0.0),
    "light": AugmentationOptions(resize_or_crop=0.0, iou_crop=0.3, photometric=0.5),
    "published": AugmentationOptions(),
    "strong": AugmentationOptions(
        resize_or_crop=0.5,
        mosaic=0.4,
        large_scale_jitter=0.2,
        iou_crop=0.2,
        copy_paste=0.3,
        mixup=0.2,
        photometric=0.5,
        jitter_scale=(0.5, 1.5),
    ),
}
"""The choices by name, from nothing to everything. With None images are only resized."""
PLAIN_AUGMENTATION = {"none": "none", "flip": "flip", "light": "flip", "published": "published", "strong": "flip"}
"""The choice that takes the place of each in the last epochs, when images look as they will in use, at full size."""


class StrongAugmentation:
    """Augment images as `AugmentationOptions` say. Sizes have the meaning that they have for `DetrAugmentation`.

    Other images are drawn from a pool and decoded here, so randomness is torch's global generator alone: the same
    generator state gives the same result in any process.

    Args:
        shortest_edge: the largest size of the shortest edge after augmentation, in pixels.
        longest_edge: the bound of the longest edge after augmentation, in pixels.
        options: the probability of each augmentation.
        pool: the training set as undecoded rows of the schema, by index. It is needed where images are combined.
        most_objects: the number of the model's queries. Images are not combined where they would have more objects.

    Raises:
        ValueError: the sizes mean nothing, or the pool is missing, empty or a stream.
    """

    def __init__(
        self,
        shortest_edge: int,
        longest_edge: int,
        options: AugmentationOptions,
        pool: Sequence[dict] | None = None,
        most_objects: float = math.inf,
    ):
        if options.needs_partners and not (isinstance(pool, Sized) and len(pool)):
            found = "none" if pool is None else f"{type(pool).__name__} without rows by index"
            raise ValueError(f"mosaic, mixup and copy_paste need a pool of images to draw from, got {found}")
        published = DetrAugmentation(shortest_edge, longest_edge)
        self.options = options
        self.pool = () if pool is None else pool
        self.most_objects = most_objects
        zooms = {options.jitter_scale[1]: options.large_scale_jitter, IOU_CROP_ZOOM: options.iou_crop, 1.0: 1.0}
        self.least_edge = round(shortest_edge * max(zoom for zoom, probability in zooms.items() if probability))
        self.uses_masks = options.copy_paste > 0
        self.resize = published.resize
        self.turn = v2.Compose(
            [
                v2.RandomHorizontalFlip(options.horizontal_flip),
                v2.RandomVerticalFlip(options.vertical_flip),
                v2.RandomApply([QuarterTurn()], options.quarter_turn),
            ]
        )
        self.whole = RandomResize([shortest_edge], longest_edge)
        sizings = {
            self._mosaic: options.mosaic,
            LargeScaleJitter(self.resize, options.jitter_scale): options.large_scale_jitter,
            IoUCrop(self.resize): options.iou_crop,
        }
        rest = max(0.0, 1 - sum(sizings.values()))
        sizings[published.resize_or_crop] = rest * options.resize_or_crop
        sizings[self.whole] = rest * (1 - options.resize_or_crop)
        self.size = v2.RandomChoice(list(sizings), p=list(sizings.values()))
        self.distort = v2.RandomApply([PhotometricDistortion()], options.photometric)

    def __call__(self, image: Tensor, target: dict[str, Any]) -> Example:
        """Augment an image, uint8 (3, H, W), and its target together; see `DetrAugmentation`."""
        image, target = self.size(*self.turn(image, area_as_share(target)))
        target = without_lost_objects(target)
        if self._drawn(self.options.copy_paste):
            image, target = self._if_few(copy_paste, (image, target))
        if self._drawn(self.options.mixup):
            image, target = self._if_few(mixup, (image, target))
        image = self.distort(image)  # it comes last, because the image is small by now
        return image, share_as_area(without_lost_objects(target))

    def _mosaic(self, image: Tensor, target: dict[str, Any]) -> Example:
        size = self.resize.draw_size(image)
        tile_edge = round(TILE_EDGE * min(size))
        examples = [(image, target), *(self._partner(target, tile_edge) for _ in range(3))]
        combined = mosaic([examples[index] for index in torch.randperm(4)], size)
        return combined if self._has_few(combined) else self.whole(image, target)

    def _if_few(self, combine: Callable[[Example, Example], Example], example: Example) -> Example:
        height, width = example[0].shape[1:]
        partner = self._partner(example[1], min(height, width))
        combined = combine(example, cover(*partner, (height, width)))
        return combined if self._has_few(combined) else example

    def _has_few(self, example: Example) -> bool:
        return int((example[1]["iscrowd"] == 0).sum()) <= self.most_objects

    def _partner(self, target: dict[str, Any], least_edge: int) -> Example:
        """Draw an example to combine with the example of `target`, with masks if `target` has them."""
        row = self.pool[int(torch.randint(len(self.pool), ()))]
        image, drawn = load_example(row, "masks" in target, least_edge)
        return self.turn(image, area_as_share(drawn))

    @staticmethod
    def _drawn(probability: float) -> bool:
        return bool(torch.rand(()) < probability)


def augmentation_options(name: str) -> AugmentationOptions | None:
    """Return the options of a name in `AUGMENTATIONS`.

    Raises:
        ValueError: there is no such name.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}; got {name!r}")
    return AUGMENTATIONS[name]


def build_augmentation(
    name: str,
    shortest_edge: int,
    longest_edge: int,
    pool: Sequence[dict] | None = None,
    most_objects: float = math.inf,
) -> DetrAugmentation | StrongAugmentation | None:
    """Return the augmentation of a name in `AUGMENTATIONS`. For the other arguments see `StrongAugmentation`.

    Raises:
        ValueError: there is no such name.
    """
    options = augmentation_options(name)
    if options is None:
        return None
    if options == AugmentationOptions():
        return DetrAugmentation(shortest_edge, longest_edge)
    return StrongAugmentation(shortest_edge, longest_edge, options, pool, most_objects)
