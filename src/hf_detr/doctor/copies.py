"""Finding images that are copies of each other, or nearly: by the bytes, and by a difference hash of the pixels."""

from collections.abc import Sequence

import numpy as np

from .image_facts import ImageFacts

MOST_DIFFERENT_BITS = 4
"""Of the 64 bits of the hash: re-encoding and resizing flip a few; different photographs differ in about half."""
MOST_DIFFERENT_GREY = 8.0
"""Mean difference of the grey thumbnails, of 255: pictures without contrast have the same hash whatever their grey."""
ROWS_AT_ONCE = 1024


def groups_of_copies(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Return the indices of images that are the same or look it, as groups of two or more, in order.

    Groups are transitive: the frames of a slow film are one group.
    """
    readable = np.array([index for index, fact in enumerate(facts) if fact.thumbnail is not None], dtype=np.int64)
    if len(readable) < 2:
        return []
    thumbnails = np.stack([facts[index].thumbnail for index in readable]).astype(np.float32)
    leader = list(range(len(readable)))
    for first, second in _similar_pairs(thumbnails):
        leaders = sorted((_leader(leader, first), _leader(leader, second)))
        leader[leaders[1]] = leaders[0]
    groups: dict[int, list[int]] = {}
    for position, index in enumerate(readable.tolist()):
        groups.setdefault(_leader(leader, position), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def identical(facts: Sequence[ImageFacts]) -> bool:
    """Whether the files are the same byte for byte."""
    return len({fact.digest for fact in facts}) == 1


def _similar_pairs(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of (N, 8, 9) thumbnails that look alike; quadratic in N, but one matrix product a block."""
    bits = np.where(thumbnails[:, :, 1:] > thumbnails[:, :, :-1], 1, -1).reshape(len(thumbnails), -1)
    signs = bits.astype(np.float32)
    least_product = signs.shape[1] - 2 * MOST_DIFFERENT_BITS  # each bit that differs takes two from the product
    pairs = []
    for start in range(0, len(signs), ROWS_AT_ONCE):
        rows, columns = np.nonzero(signs[start : start + ROWS_AT_ONCE] @ signs[start:].T >= least_product)
        rows, columns = rows[rows < columns] + start, columns[rows < columns] + start
        difference = np.abs(thumbnails[rows] - thumbnails[columns]).mean(axis=(1, 2))
        close = difference <= MOST_DIFFERENT_GREY
        pairs += zip(rows[close].tolist(), columns[close].tolist(), strict=True)
    return pairs


def _leader(leader: list[int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]  # halve the way for the next one
        index = leader[index]
    return index
