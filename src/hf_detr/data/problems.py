"""Words the errors about records that cannot be used: how many there are, the first of them, and what would help."""

from collections.abc import Sequence

import numpy as np

from .box_checks import Changes, numbers_of, reaches_outside
from .box_formats import BoxFormat, format_in_words, to_xywh
from .mistaken_format import MistakenFormat, mistaken_format
from .options import ReadOptions
from .schema import DataError, SourceImage

NO_OBJECTS = "split has no object to learn from"
NO_OBJECTS_ADVICE = "check that annotations and images belong together"
"""What is wrong with a training split without objects, and what to do about it."""
PROBLEMS_SHOWN = 3
"""The number of unusable images that an error names; the doctor names all."""


def counted(problems: Sequence[DataError]) -> str:
    """Return a line that says why one or many images cannot be used."""
    return str(problems[0]) if len(problems) == 1 else f"{len(problems)} images cannot be used: {listed(problems)}"


def listed(problems: Sequence[DataError]) -> str:
    """Return the first problems on a line, and how many more there are."""
    shown = "; ".join(str(problem) for problem in problems[:PROBLEMS_SHOWN])
    more = len(problems) - PROBLEMS_SHOWN
    return f"{shown}; and {more} more, which `hf-detr doctor` lists" if more > 0 else shown


def boxes_remedy(records: Sequence[SourceImage], options: ReadOptions, clipping: Changes) -> str:
    """Return what would help where boxes reach beyond their images.

    Args:
        records: images with their displayed size, among them the images with such boxes.
        options: the options with which the boxes were read.
        clipping: the counts of what clipping would do.
    """
    clip = f"--clip-boxes would {clipping.in_words()}"
    if options.box_format is not None:
        return clip
    if _all_fit(records, "xyxy"):
        return (
            f"this looks like xyxy, that is {format_in_words('xyxy')}, in which all boxes fit: "
            f"--box-format xyxy reads them so; {clip}"
        )
    return f"{clip}; if the four numbers of the boxes are something else, --box-format says what"


def judged_format(records: Sequence[SourceImage], options: ReadOptions) -> MistakenFormat | None:
    """Return the format that the boxes of many images seem to have instead of the stated one, if it is clear.

    Args:
        records: images with their displayed size.
        options: how the boxes are taken; a format that the user names is not judged.
    """
    by_format: dict[BoxFormat, list[tuple[float, ...]]] = {}
    for record in records if options.box_format is None else ():
        for item in record.objects:
            numbers = numbers_of(item)
            if numbers is not None and not item.from_outline:
                by_format.setdefault(item.box_format, []).append((*numbers, record.width, record.height))
    if not by_format:
        return None
    stated = max(by_format, key=lambda name: len(by_format[name]))
    boxes = np.array(by_format[stated], dtype=np.float64)
    return mistaken_format(boxes[:, :4], boxes[:, 4:], stated)


def _all_fit(records: Sequence[SourceImage], box_format: BoxFormat) -> bool:
    boxes = [
        (to_xywh(numbers, box_format, record.width, record.height), record)
        for record in records
        for item in record.objects
        if not item.from_outline and (numbers := numbers_of(item)) is not None
    ]
    return bool(boxes) and all(
        box[2] > 0 and box[3] > 0 and not reaches_outside(box, record.width, record.height) for box, record in boxes
    )
