"""Finds images that are copies of each other, or nearly, by their bytes and by a difference hash of their pixels."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image

from ..processing.image_files import PictureError, displayed_picture, open_picture

THUMBNAIL_SIZE = (9, 8)
"""The width and height of the grey thumbnail, whose 8x8 differences along the rows are the difference hash (dHash)."""
DRAFT_SIZE = (72, 64)
"""JPEG files are decoded at an eighth of their size, or a little above this edge. Every byte is read all the same."""
MOST_DIFFERENT_BITS = 4
"""The number of the 64 bits of the hash that may differ. Re-encoding and resizing flip a few bits; other photographs
differ in about half."""
MOST_DIFFERENT_GREY = 8.0
"""The mean difference that the grey thumbnails may have, of 255. Pictures without contrast have the same hash whatever
their grey."""
PRODUCTS_AT_ONCE = 2**24
"""Images are compared in blocks of this many pairs, which bounds the memory."""


@dataclass(frozen=True)
class Fingerprint:
    """The values by which an image is compared.

    Attributes:
        digest: a hash of the bytes of the file.
        thumbnail: (8, 9) uint8, grey, of the picture as displayed.
    """

    digest: bytes
    thumbnail: np.ndarray


def image_bytes(image: Any) -> bytes:
    """Return the encoded image of a record, given as in `SourceImage.image`.

    Raises:
        OSError: its file cannot be read.
    """
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if not isinstance(image, dict):
        image = datasets.Image().encode_example(image)
    return image["bytes"] if image.get("bytes") is not None else Path(image["path"]).read_bytes()


def fingerprint_of(content: bytes) -> Fingerprint:
    """Return the fingerprint of an encoded image.

    Raises:
        PictureError: the image cannot be decoded, or has neither 8 nor 16 bits a pixel.
    """
    with open_picture(io.BytesIO(content)) as picture:
        picture.draft("L", DRAFT_SIZE)
        shown = displayed_picture(picture, convert_rgb=False)
        if shown.mode == "F":
            raise PictureError("expected 8 or 16 bits a pixel, got the pixel format 'F'")
        grey = shown.convert("L").resize(THUMBNAIL_SIZE, PIL.Image.Resampling.BOX)
    return Fingerprint(hashlib.blake2b(content, digest_size=16).digest(), np.asarray(grey))


def groups_of_look_alikes(fingerprints: Sequence[Fingerprint | None]) -> list[list[int]]:
    """Return the indices of images that are the same or look it, as groups of two or more, in order.

    Groups are transitive: the frames of a slow film are one group. An image without a fingerprint is in no group.
    """
    known = {index: found.thumbnail for index, found in enumerate(fingerprints) if found is not None}
    if len(known) < 2:
        return []
    thumbnails = np.stack(list(known.values())).astype(np.float32)
    leader = list(range(len(known)))
    for first, second in _similar_pairs(thumbnails):
        leaders = sorted((_leader(leader, first), _leader(leader, second)))
        leader[leaders[1]] = leaders[0]
    groups: dict[int, list[int]] = {}
    for position, index in enumerate(known):
        groups.setdefault(_leader(leader, position), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def identical(fingerprints: Sequence[Fingerprint]) -> bool:
    """Return whether the files are the same byte for byte."""
    return len({found.digest for found in fingerprints}) == 1


def _similar_pairs(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of (N, 8, 9) thumbnails that look alike, by one matrix product for each block of pairs."""
    bits = np.where(thumbnails[:, :, 1:] > thumbnails[:, :, :-1], 1, -1).reshape(len(thumbnails), -1)
    signs = bits.astype(np.float32)
    least_product = signs.shape[1] - 2 * MOST_DIFFERENT_BITS  # each bit that differs takes two from the product
    step = max(1, PRODUCTS_AT_ONCE // len(signs))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signs), step):
        rows, columns = np.nonzero(signs[start : start + step] @ signs[start:].T >= least_product)
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
