"""Checks the boxes of a record, which are four finite numbers with a size inside their image, and clips them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .box_formats import format_in_words, is_normalised, to_xywh
from .options import ReadOptions
from .schema import DataError, SourceImage, SourceObject, is_finite, is_integer, locate

OVERFLOW_TOLERANCE = 2.0
"""Boxes that reach at most this many pixels beyond the image are clipped, because this is rounding and no mistake."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Changes:
    """The counts of boxes that were changed or left out, for one record or for many.

    Attributes:
        empty: boxes left out because they have no area.
        clipped: boxes cut at the edge of their image, which they crossed by more than `OVERFLOW_TOLERANCE` pixels.
        dropped: boxes left out because clipping leaves nothing of them.
        images: images with boxes that were clipped or dropped.
    """

    empty: int = 0
    clipped: int = 0
    dropped: int = 0
    images: int = 0

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(
            self.empty + other.empty,
            self.clipped + other.clipped,
            self.dropped + other.dropped,
            self.images + other.images,
        )

    def in_words(self, done: bool = False) -> str:
        """Return in words what clipping does, such as "clip 12 boxes of 5 images and drop 1", or what it did."""
        clip, drop = ("clipped", "dropped") if done else ("clip", "drop")
        cut = f"{clip} {_count(self.clipped, 'box', 'boxes')} of {_count(self.images, 'image', 'images')}"
        return f"{cut} and {drop} {self.dropped}" if self.dropped else cut


class BoxesOutsideError(DataError):
    """Boxes reach beyond their image; `clipping` counts what `ReadOptions.clip_boxes` would do to them."""

    def __init__(self, message: str, clipping: Changes):
        super().__init__(message)
        self.clipping = clipping


class CheckedObject(NamedTuple):
    """An object that passed the check, with its box (x, y, width, height) inside the image and its area, in pixels."""

    item: SourceObject
    box: Box
    area: float


def checked_objects(
    record: SourceImage, labels: Mapping[Hashable, int], source: str | Path, options: ReadOptions
) -> tuple[list[CheckedObject], Changes]:
    """Check the objects of a record whose size is known.

    Args:
        record: the image and its objects as the file has them.
        labels: the declared categories.
        source: the file that errors name.
        options: the format of the boxes, and whether they are clipped.

    Returns:
        the objects that can be used, and the counts of boxes that were left out or clipped.

    Raises:
        DataError: a field of an object is not what it should be, or its category is not declared.
        BoxesOutsideError: boxes reach beyond the image and are not to be clipped.
    """
    kept: list[CheckedObject] = []
    outside: list[tuple[SourceObject, Box]] = []
    empty = dropped = 0
    for item in record.objects:
        box = _checked_box(item, record, source, options)
        if item.category is None:
            problem = "the object has no category (in a COCO file, field 'category_id' is missing)"
            raise locate(problem, source, record.image_id, item.id)
        if item.category not in labels:
            declared = f"the declared categories are {list(labels)}"
            problem = f"{item.category!r} is not declared; {declared}"
            raise locate(problem, source, record.image_id, item.id, "category")
        inner = clipped(box, record.width, record.height)
        is_outside, is_solid = reaches_outside(box, record.width, record.height), inner[2] > 0 and inner[3] > 0
        if is_outside:
            outside.append((item, box))
        if is_solid:
            share = inner[2] * inner[3] / (box[2] * box[3]) if is_outside else 1.0
            area = inner[2] * inner[3] if item.area is None else share * _stated_area(item, record, options)
            kept.append(CheckedObject(item, inner, area))
        empty += not is_solid and not is_outside
        dropped += not is_solid and is_outside
    changes = Changes(empty, len(outside) - dropped, dropped, int(bool(outside)))
    if outside and not options.clip_boxes:
        raise _outside_error(*outside[0], changes, record, source, options)
    if (empty or dropped) and record.instance_mask is not None:
        raise locate("an object with an instance mask has a box of zero area", source, record.image_id, field="bbox")
    return kept, changes


def reaches_outside(box: Any, width: Any, height: Any) -> Any:
    """Return whether a box (x, y, width, height) reaches further beyond its image than rounding explains.

    Box and size may be arrays of many boxes, all in pixels; then the answer is an array too.
    """
    x, y, box_width, box_height = box
    low, right, bottom = -OVERFLOW_TOLERANCE, width + OVERFLOW_TOLERANCE, height + OVERFLOW_TOLERANCE
    return (x < low) | (y < low) | (x + box_width > right) | (y + box_height > bottom)


def clipped(box: Box, width: float, height: float) -> Box:
    """Return the part of a box (x, y, width, height) inside an image; without a positive size nothing is left."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return left, top, right - left, bottom - top


def numbers_of(item: SourceObject) -> Box | None:
    """Return the four numbers of an object's box as its file has them, or None where they are something else."""
    box = item.bbox
    if isinstance(box, str) or not isinstance(box, Sequence | np.ndarray) or len(box) != 4:
        return None
    if not all(is_finite(value) for value in box):
        return None
    first, second, third, fourth = (float(value) for value in box)
    return first, second, third, fourth


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _checked_box(item: SourceObject, record: SourceImage, source: str | Path, options: ReadOptions) -> Box:
    def error(problem: str, name: str) -> DataError:
        return locate(problem, source, record.image_id, item.id, name)

    box, words = item.bbox, format_in_words(item.format_under(options))
    if not is_integer(item.id):
        raise error(f"expected an integer, got {item.id!r}", "id")
    if isinstance(box, str) or not isinstance(box, Sequence | np.ndarray) or len(box) != 4:
        raise error(f"expected four numbers {words}, got {box!r}", "bbox")
    numbers = numbers_of(item)
    if numbers is None:
        raise error(f"expected finite numbers {words}, got {list(box)}", "bbox")
    pixels = to_xywh(numbers, item.format_under(options), record.width, record.height)
    if pixels[2] < 0 or pixels[3] < 0:
        raise error(f"expected {words} without a negative size, got {list(box)}", "bbox")
    if item.area is not None and (not is_finite(item.area) or item.area < 0):
        raise error(f"expected a finite number that is not negative, got {item.area!r}", "area")
    if item.iscrowd not in (0, 1):
        raise error(f"expected 0 or 1, got {item.iscrowd!r}", "iscrowd")
    return pixels


def _stated_area(item: SourceObject, record: SourceImage, options: ReadOptions) -> float:
    """Return the stated area in pixels; beside boxes in shares of the image, an area up to 1 is a share of it too."""
    is_share = is_normalised(item.format_under(options)) and item.area <= 1
    return float(item.area) * record.width * record.height if is_share else float(item.area)


def _outside_error(
    item: SourceObject,
    box: Box,
    clipping: Changes,
    record: SourceImage,
    source: str | Path,
    options: ReadOptions,
) -> BoxesOutsideError:
    expected = f"expected {format_in_words(item.format_under(options))} inside the image"
    problem = f"{expected} of {record.width}x{record.height} pixels, got {[float(value) for value in item.bbox]}"
    return BoxesOutsideError(str(locate(problem, source, record.image_id, item.id, "bbox")), clipping)
