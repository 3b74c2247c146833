"""Converts boxes of every format to (x, y, width, height) in pixels. A format says what four numbers mean."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

if TYPE_CHECKING:
    import numpy as np

BoxFormat = Literal["xywh", "xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn"]
BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)
"""The formats by the names that torchvision uses. With an n the numbers are shares of the image's width and height."""
BOX_FORMATS_IN_WORDS = (
    "xywh (left, top, width, height), xyxy (left, top, right, bottom) or cxcywh (centre x, centre y, width, height), "
    "in pixels; xywhn, xyxyn or cxcywhn for the same as shares of the image's width and height"
)
_NUMBERS = {
    "xywh": "x, y, width, height",
    "xyxy": "left, top, right, bottom",
    "cxcywh": "centre x, centre y, width, height",
}

Number = TypeVar("Number", float, "np.ndarray")


def is_normalised(box_format: BoxFormat) -> bool:
    """Return whether the numbers of a format are shares of the image's width and height, not pixels."""
    return box_format.endswith("n")


def format_in_words(box_format: BoxFormat) -> str:
    """Return what the four numbers of a format are, for an error message."""
    numbers = f"({_NUMBERS[box_format.removesuffix('n')]})"
    return f"{numbers} as shares of the image's size" if is_normalised(box_format) else numbers


def to_xywh(
    box: Iterable[Number], box_format: BoxFormat, width: Number, height: Number
) -> tuple[Number, Number, Number, Number]:
    """Convert boxes of any format to (x, y, width, height) in pixels.

    Args:
        box: the four numbers of a box, or four arrays of many boxes.
        box_format: the format of the four numbers.
        width, height: the size of the image in pixels, or arrays of the sizes of many.

    Returns:
        left, top, width and height in pixels; a width is negative where the corners of a box are exchanged.
    """
    first, second, third, fourth = box
    match box_format.removesuffix("n"):
        case "xyxy":
            third, fourth = third - first, fourth - second
        case "cxcywh":
            first, second = first - third / 2, second - fourth / 2
    if is_normalised(box_format):
        return first * width, second * height, third * width, fourth * height
    return first, second, third, fourth
