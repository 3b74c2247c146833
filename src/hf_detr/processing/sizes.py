"""Computes sizes of pictures: the published size, the size after resizing, and the canvas that fits a whole batch.

Sizes of pictures are (height, width).
"""

import math

from torch import Tensor
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import SizeDict, get_image_size_for_max_height_width

# Carion et al. 2020: the shortest edge becomes 800 pixels unless the longest would exceed 1333.
SHORTEST_EDGE = 800
LONGEST_EDGE = 1333
LONGEST_TO_SHORTEST = LONGEST_EDGE / SHORTEST_EDGE


def published_size(shortest_edge: int = SHORTEST_EDGE) -> dict[str, int]:
    """Return the `size` of an image processor for a shortest edge in pixels; the published ratio gives the longest."""
    return {"shortest_edge": shortest_edge, "longest_edge": round(shortest_edge * LONGEST_TO_SHORTEST)}


def size_of(image: Tensor) -> tuple[int, int]:
    """Return the size of a picture (…, h, w)."""
    height, width = image.shape[-2:]
    return height, width


def resized_size(image_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    """Return the size of a picture after resizing as `HfDetrImageProcessor` describes it; no side is empty.

    Raises:
        ValueError: `size` has none of the forms that are described there.
    """
    if size.height is not None and size.width is not None:
        return size.height, size.width
    if size.shortest_edge is not None:
        height, width = get_size_with_aspect_ratio(image_size, size.shortest_edge, size.longest_edge)
    elif size.max_height is not None and size.max_width is not None:
        height, width = get_image_size_for_max_height_width(image_size, size.max_height, size.max_width)
    elif size.longest_edge is not None:
        height, width = (round(side * size.longest_edge / max(image_size)) for side in image_size)
    else:
        raise ValueError(f"size must have one of the forms of HfDetrImageProcessor, got {dict(size)}.")
    return max(height, 1), max(width, 1)  # extreme aspect ratios would round to an empty picture


def canvas_sizes(
    sizes: list[tuple[int, int]], size: SizeDict | None, pad_size: SizeDict | None, size_divisor: int | None
) -> list[tuple[int, int]]:
    """Return the padded size of a batch, repeated for each picture.

    Args:
        sizes: the sizes of the resized pictures.
        size: how they were resized; None if they were not. A letterbox has a canvas of its own.
        pad_size: the canvas that is asked for, if any.
        size_divisor: both sides of the canvas are multiples of this number.

    Raises:
        ValueError: a picture is larger than the canvas that is asked for, or that canvas lacks a side.
    """
    largest = max(height for height, _ in sizes), max(width for _, width in sizes)
    canvas = largest
    if pad_size is not None:
        if pad_size.height is None or pad_size.width is None:
            raise ValueError(f"pad_size must have a height and a width, got {dict(pad_size)}.")
        canvas = (pad_size.height, pad_size.width)
    elif size is not None and size.longest_edge is not None and set(dict(size)) == {"longest_edge"}:
        canvas = (size.longest_edge, size.longest_edge)
    if canvas[0] < largest[0] or canvas[1] < largest[1]:
        raise ValueError(f"pad_size (height, width) {canvas} is smaller than the largest resized image, {largest}.")
    divisor = size_divisor or 1
    height, width = (math.ceil(side / divisor) * divisor for side in canvas)
    return [(height, width)] * len(sizes)
