"""Finds boxes in another format than their layout has: it judges over a whole split which format fits the images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .box_checks import reaches_outside
from .box_formats import BoxFormat, format_in_words, is_normalised, to_xywh

LEAST_MISFITS = 5
"""Fewer boxes than this that contradict the stated format may be slips, and fit another reading by chance."""
LEAST_FIT = 0.98
"""The share of the boxes that another reading has to explain. The other boxes may hold other mistakes."""
MOST_UNEXPLAINED = 0.1
"""Another reading may leave unexplained at most this share of the boxes that the stated format leaves unexplained."""
NORMALISED_SHARE = 0.95
"""With this share of the boxes between 0 and 1, they are not pixels."""
NORMALISED_SLACK = 1e-3
FAR_BEYOND = 3.0
"""Shares of an image that are only drawn too large reach at most this far; pixels taken for shares reach further."""
ROWS_FIRST = "(y, x, height, width)"
"""A reading that no `BoxFormat` is: the numbers have to be exchanged in the file."""


@dataclass(frozen=True)
class MistakenFormat:
    """A reading that explains the boxes of a split better than the stated one.

    Attributes:
        name: the format that the four numbers seem to have, in words.
        box_format: its name for `ReadOptions.box_format`; None where no format of that option is this reading.
        evidence: the counts that speak for this reading.
        bbox: (N, 4) float64, the boxes as (x, y, width, height) in pixels under this reading.
        misfits: the positions of the boxes that contradict the stated format.
    """

    name: str
    box_format: BoxFormat | None
    evidence: str
    bbox: np.ndarray
    misfits: np.ndarray

    @property
    def remedy(self) -> str:
        """The remedy, as a sentence without its full stop."""
        if self.box_format is None:
            return "exchange the numbers in the file: no --box-format has rows first"
        return f"--box-format {self.box_format} reads them so"


def mistaken_format(bbox: np.ndarray, sizes: np.ndarray, stated: BoxFormat) -> MistakenFormat | None:
    """Return the format that the boxes of a split have instead of the stated one, if it is clear.

    Args:
        bbox: (N, 4) float64, the four numbers of each box as the file has them, finite.
        sizes: (N, 2) float64, (width, height) in pixels of the image of each box.
        stated: the format of the numbers by the layout of the files.
    """
    if len(bbox) < LEAST_MISFITS:
        return None
    in_shares = _normalised(bbox)
    normalised = in_shares.mean() >= NORMALISED_SHARE
    if normalised and not is_normalised(stated):
        misfits, problem = in_shares, "lie between 0 and 1"
    else:
        misfits, problem = ~_fits(_pixels(bbox, sizes, stated), sizes), "leave their image or have no size"
    if misfits.sum() < LEAST_MISFITS:
        return None
    readings = _readings(bbox, sizes, stated, normalised)
    shares = {name: _fits(pixels, sizes).mean() for name, (_, pixels) in readings.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < LEAST_FIT or 1 - shares[best] > MOST_UNEXPLAINED * misfits.mean():
        return None
    evidence = (
        f"read as {_words(stated)}, {misfits.sum()} of {len(bbox)} boxes {problem}; "
        f"read as {best}, {round(shares[best] * len(bbox))} fit"
    )
    box_format, pixels = readings[best]
    return MistakenFormat(best, box_format, evidence, pixels, np.flatnonzero(misfits))


def _readings(
    bbox: np.ndarray, sizes: np.ndarray, stated: BoxFormat, normalised: bool
) -> Mapping[str, tuple[BoxFormat | None, np.ndarray]]:
    """Return the formats that the boxes may have, by their names in words, with the boxes in pixels under each."""
    formats: tuple[BoxFormat, ...] = ("xywhn", "xyxyn", "cxcywhn") if normalised else ("xyxy", "cxcywh", "xywh")
    readings: dict[str, tuple[BoxFormat | None, np.ndarray]] = {
        _words(name): (name, _pixels(bbox, sizes, name)) for name in formats if name != stated
    }
    rows_first = bbox[:, [1, 0, 3, 2]]
    if normalised:
        words = f"{ROWS_FIRST} as shares of the image's size"
        readings[words] = (None, _pixels(rows_first, sizes, "xywhn"))
    else:
        readings[ROWS_FIRST] = (None, rows_first)
    if is_normalised(stated) and not normalised:
        # Shares of an image always fit it when they are taken for pixels. So only numbers far beyond 1 rule shares
        # out.
        near = (np.abs(bbox) <= FAR_BEYOND).all(axis=1)
        for _, pixels in readings.values():
            pixels[near] = np.nan
    return readings


def _words(box_format: BoxFormat) -> str:
    words = format_in_words(box_format)
    return words if is_normalised(box_format) else f"{words} in pixels"


def _pixels(bbox: np.ndarray, sizes: np.ndarray, box_format: BoxFormat) -> np.ndarray:
    return np.stack(to_xywh(bbox.T, box_format, *sizes.T), axis=1)


def _normalised(bbox: np.ndarray) -> np.ndarray:
    inside = (bbox >= -NORMALISED_SLACK) & (bbox <= 1 + NORMALISED_SLACK)
    normalised: np.ndarray = np.all(inside, axis=1) & np.any(bbox > 0, axis=1)
    return normalised


def _fits(bbox: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes (x, y, width, height) that have a size and lie in their image, rounding aside."""
    fits: np.ndarray = ~reaches_outside(bbox.T, *sizes.T) & (bbox[:, 2:] > 0).all(axis=1)
    return fits
