"""Places the boxes of photographs turned by EXIF whose annotations state the size as it is stored.

A phone stores a portrait photograph lying on its side, with an EXIF orientation that tells programs to turn it.
Annotations that state the stored size, width and height exchanged, come from two kinds of tools: some show the
photograph upright and take only its size from the file (Label Studio does), others ignore the orientation and draw
boxes on the picture as it lies. The boxes themselves tell which: they have to fit the picture that they were drawn on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .box_checks import Box, numbers_of, reaches_outside
from .box_formats import to_xywh
from .image_headers import ImageHeader
from .options import ReadOptions
from .schema import SourceImage, SourceObject

EXIF_TURNS = {
    5: lambda x, y, w, h, stored: (y, x, h, w),
    6: lambda x, y, w, h, stored: (stored[1] - y - h, x, h, w),
    7: lambda x, y, w, h, stored: (stored[1] - y - h, stored[0] - x - w, h, w),
    8: lambda x, y, w, h, stored: (y, stored[0] - x - w, h, w),
}
"""Functions, by EXIF orientation, that move a box (x, y, width, height) from the stored to the displayed picture. They
get the stored (width, height) too."""


def states_stored_size(record: SourceImage, header: ImageHeader | None) -> bool:
    """Return whether a record states the size of a turned photograph as it is stored, not as it is displayed."""
    if header is None or not header.sides_exchanged or record.instance_mask is not None:
        return False
    return header.size != header.stored_size == (record.width, record.height)


def drawn_upright(turned: Sequence[tuple[SourceImage, ImageHeader]], options: ReadOptions) -> list[bool]:
    """Decide for records that `states_stored_size` whether their boxes were drawn on the picture as displayed.

    They were if they fit it better than the picture as stored. Boxes that fit both follow the other records, since one
    tool wrote them all. Where no record tells, or as many speak for each picture, the displayed picture is assumed.
    """
    votes = [_vote(record, header, options) for record, header in turned]
    return [vote > 0 or (vote == 0 and sum(votes) >= 0) for vote in votes]


def as_displayed(record: SourceImage, header: ImageHeader, upright: bool, options: ReadOptions) -> SourceImage:
    """Return a record with the size of the displayed picture, and its boxes in it.

    Args:
        record: a record that `states_stored_size`.
        header: the header of its image.
        upright: whether the boxes were drawn on the displayed picture; otherwise they are turned with the picture.
        options: the format of the boxes.
    """
    width, height = header.size
    objects = record.objects if upright else [_turned(item, header, options) for item in record.objects]
    return replace(record, width=width, height=height, objects=objects)


def _vote(record: SourceImage, header: ImageHeader, options: ReadOptions) -> int:
    """Return 1 if the boxes fit the displayed picture better, -1 if they fit the stored one better, 0 otherwise."""
    upright, stored = (
        sum(_is_outside(item, size, options) for item in record.objects) for size in (header.size, header.stored_size)
    )
    return int(np.sign(stored - upright))


def _is_outside(item: SourceObject, size: tuple[int, int], options: ReadOptions) -> bool:
    numbers = numbers_of(item)
    return numbers is not None and reaches_outside(to_xywh(numbers, item.format_under(options), *size), *size)


def _turned(item: SourceObject, header: ImageHeader, options: ReadOptions) -> SourceObject:
    numbers = numbers_of(item)
    if numbers is None:
        return item  # for the check to complain about
    box = to_xywh(numbers, item.format_under(options), *header.stored_size)
    return replace(item, bbox=_turned_box(box, header), box_format="xywh", from_outline=True)


def _turned_box(box: Box, header: ImageHeader) -> Box:
    return EXIF_TURNS[header.orientation](*box, header.stored_size)
