"""Boxes in another format than their reader expects: judged over a whole split, by which reading fits the images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..data.schema import OVERFLOW_TOLERANCE
from .examined import Boxes

LEAST_MISFITS = 5
"""Fewer boxes than this that contradict the declared format may be slips, and fit another reading by chance."""
LEAST_FIT = 0.98
"""Share of the boxes that another reading has to explain; what remains may be other mistakes."""
MOST_UNEXPLAINED = 0.1
"""Another reading has to leave at most this share of the boxes unexplained that the declared format does."""
NORMALISED_SHARE = 0.95
"""With this share of the boxes between 0 and 1, they are not pixels."""
NORMALISED_SLACK = 1e-3
FAR_BEYOND = 3.0
"""Image sizes from the origin: corners taken for sizes reach at most two."""

Reading = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From boxes (N, 4) as they came and image sizes (N, 2) to (x, y, width, height) in pixels, (N, 4)."""


@dataclass(frozen=True)
class BoxFormat:
    """A reading that explains the boxes of a split better than the declared (x, y, width, height) in pixels.

    Attributes:
        name: the format that the boxes seem to have.
        evidence: the counts that say so.
        bbox: (N, 4) float64, the boxes as (x, y, width, height) in pixels under this reading.
        misfits: the positions of the boxes that contradict the declared format.
    """

    name: str
    evidence: str
    bbox: np.ndarray
    misfits: np.ndarray


def mistaken_format(boxes: Boxes) -> BoxFormat | None:
    """Return the format that the boxes of a split have instead of (x, y, width, height) in pixels, if it is clear."""
    known = boxes.finite
    bbox, sizes = boxes.bbox[known], boxes.image_size[known]
    if len(bbox) < LEAST_MISFITS:
        return None
    normalised = _normalised(bbox)
    if normalised.mean() >= NORMALISED_SHARE:
        bbox = bbox * np.tile(sizes, 2)
        readings, misfits = {"x, y, width, height": lambda box, size: box, **PIXEL_READINGS}, normalised
        name, problem = "({}) divided by the image's size", "lie between 0 and 1"
    else:
        readings, misfits = PIXEL_READINGS | YOLO_READINGS, ~_fits(bbox, sizes)
        name, problem = "({})", "leave their image or have no size"
    if misfits.sum() < LEAST_MISFITS:
        return None
    fits = {reading: _fits(convert(bbox, sizes), sizes).mean() for reading, convert in readings.items()}
    best = max(fits, key=fits.get)
    if fits[best] < LEAST_FIT or 1 - fits[best] > MOST_UNEXPLAINED * misfits.mean():
        return None
    corrected = np.full_like(boxes.bbox, np.nan)
    corrected[known] = readings[best](bbox, sizes)
    evidence = (
        f"read as (x, y, width, height) in pixels, {misfits.sum()} of {len(bbox)} boxes {problem}; "
        f"read as {name.format(best)}, {round(fits[best] * len(bbox))} fit"
    )
    return BoxFormat(name.format(best), evidence, corrected, np.flatnonzero(known)[misfits])


def _normalised(bbox: np.ndarray) -> np.ndarray:
    inside = (bbox >= -NORMALISED_SLACK) & (bbox <= 1 + NORMALISED_SLACK)
    return inside.all(axis=1) & (bbox > 0).any(axis=1)


def _fits(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes (x, y, width, height) that have a size and lie in their image, rounding aside."""
    corner, extent = bbox[:, :2], bbox[:, 2:]
    inside = (corner >= -OVERFLOW_TOLERANCE) & (corner + extent <= sizes + OVERFLOW_TOLERANCE)
    return (inside & (extent > 0)).all(axis=1)


def _from_corners(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((bbox[:, :2], bbox[:, 2:] - bbox[:, :2]), axis=1)


def _from_centre(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((bbox[:, :2] - bbox[:, 2:] / 2, bbox[:, 2:]), axis=1)


def _from_rows_first(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return bbox[:, [1, 0, 3, 2]]


def _centre_undone(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((bbox[:, :2] + bbox[:, 2:] / 2, bbox[:, 2:]), axis=1)


def _scale_undone(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    # Made small enough, any box fits: only one that reaches far beyond its image was scaled once too often.
    far = (bbox[:, :2] + bbox[:, 2:] > FAR_BEYOND * sizes).any(axis=1, keepdims=True)
    return np.where(far, bbox / np.tile(sizes, 2), np.nan)


PIXEL_READINGS: dict[str, Reading] = {
    "left, top, right, bottom": _from_corners,
    "centre x, centre y, width, height": _from_centre,
    "y, x, height, width": _from_rows_first,
}
"""Formats that annotations of any kind are written in by mistake."""
YOLO_READINGS: dict[str, Reading] = {
    "left, top, width, height where YOLO has the centre": _centre_undone,
    "left, top, right, bottom where YOLO has centre and size": lambda bbox, sizes: _from_corners(
        _centre_undone(bbox, sizes), sizes
    ),
    "pixels where YOLO has shares of the image": _scale_undone,
}
"""Formats that a YOLO label file is written in by mistake, after its reader turned centre into corner."""
