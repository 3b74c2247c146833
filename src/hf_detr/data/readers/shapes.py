"""Computes the box (x, y, width, height) in pixels around each kind of shape that annotation tools draw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def box_of_points(points: Sequence[Sequence[float]]) -> list[float]:
    """Return the box around points (x, y), in any order.

    Raises:
        ValueError, TypeError, IndexError: there are none, or they are no pairs of numbers.
    """
    x, y = [float(point[0]) for point in points], [float(point[1]) for point in points]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def box_of_flat_points(values: Sequence[float]) -> list[float]:
    """Return the box around points given as x, y, x, y and so on."""
    return box_of_points(list(zip(values[::2], values[1::2], strict=True)))


def box_of_ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """Return the box around an ellipse of this centre, these radii and this angle in radians."""
    half_width = math.hypot(radius_x * math.cos(angle), radius_y * math.sin(angle))
    half_height = math.hypot(radius_x * math.sin(angle), radius_y * math.cos(angle))
    return [x - half_width, y - half_height, 2 * half_width, 2 * half_height]


def box_of_turned(box: Sequence[float], degrees: float) -> list[float]:
    """Return the box around a box (x, y, width, height) that is turned about its centre."""
    x, y, width, height = box
    angle, centre_x, centre_y = math.radians(degrees), x + width / 2, y + height / 2
    corners = [(dx * width / 2, dy * height / 2) for dx in (-1, 1) for dy in (-1, 1)]
    turned = [
        (
            centre_x + dx * math.cos(angle) - dy * math.sin(angle),
            centre_y + dx * math.sin(angle) + dy * math.cos(angle),
        )
        for dx, dy in corners
    ]
    return box_of_points(turned)


def box_of_segmentation(segmentation: Any) -> list[float] | None:
    """Return the box around a segmentation as COCO has it, or None where there is none that can be read.

    Args:
        segmentation: a list of polygons (x, y, x, y and so on), one polygon, or the runs of a mask as
            `{"size": [height, width], "counts": list of lengths or compressed text}`.
    """
    try:
        if isinstance(segmentation, Mapping):
            return _box_of_runs(segmentation)
        polygons = segmentation if isinstance(segmentation[0], list | tuple) else [segmentation]
        return box_of_points(
            [point for polygon in polygons for point in zip(polygon[::2], polygon[1::2], strict=True)]
        )
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def _box_of_runs(runs: Mapping[str, Any]) -> list[float] | None:
    from faster_coco_eval.core import mask  # the library's C code is loaded where masks are found only

    height, width = (int(side) for side in runs["size"])
    counts = runs["counts"]
    if isinstance(counts, list) and sum(counts) != height * width:
        return None
    found = mask.frPyObjects(dict(runs), height, width) if isinstance(counts, list) else dict(runs)
    box = [float(value) for value in mask.toBbox(found)]
    return box if box[2] > 0 and box[3] > 0 else None
