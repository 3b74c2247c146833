"""Tells which files are pictures, and decodes them so that every failure names the file."""

import io
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import datasets
import PIL.Image
from datasets import Dataset

from ..processing.image_files import HEIF_SUFFIXES, displayed_picture, open_picture
from .schema import locate

NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows, but that hold vectors, films or tables, or that need another program."""


def _image_suffixes() -> frozenset[str]:
    PIL.Image.init()
    # Pillow opens JPEGs of several pictures as JPEG. HEIF needs pillow-heif; without it, the error says so.
    return (
        frozenset({".mpo"})
        | HEIF_SUFFIXES
        | frozenset(
            suffix
            for suffix, kind in PIL.Image.registered_extensions().items()
            if kind in PIL.Image.OPEN and kind not in NO_PICTURES
        )
    )


IMAGE_SUFFIXES = _image_suffixes()
"""The suffixes, in small letters, of every format that Pillow opens."""

JPEG_SCALES = (1, 2, 4, 8)


def is_image(path: str | PurePath) -> bool:
    """Return whether a file is a picture by the suffix of its name, in small or capital letters."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def undecoded(dataset: Dataset) -> Dataset:
    """Return the same data set with its images as files and bytes, left for `decode_image`.

    `datasets` decodes on access, and its error for a broken file does not name the file. With an undecoded row the
    collator can name the file and the image id.
    """
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def decode_image(
    image: PIL.Image.Image | dict[str, Any], image_id: int | None = None, least_edge: int | None = None
) -> PIL.Image.Image:
    """Return the `image` of a row as an RGB picture the way it is displayed (EXIF orientation applied).

    Transparency is laid over white and 16-bit pixels are scaled, as the image processor does for inference.

    Args:
        image: a picture, or `{"bytes": ..., "path": ...}` as `datasets.Image` stores it.
        image_id: the image id that the error names.
        least_edge: the shortest edge that is needed. A JPEG may be decoded at a half, a quarter or an eighth of its
            size, which is faster, as long as no edge gets shorter than this.

    Raises:
        DataError: the image is truncated or otherwise unreadable, or its pixels are neither 8- nor 16-bit integers.
    """
    source = "image" if isinstance(image, PIL.Image.Image) else image.get("path") or "embedded image"
    try:
        picture = displayed_picture(_opened(image, least_edge, source) if isinstance(image, dict) else image)
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise locate(f"the image cannot be decoded ({error})", source, image_id) from error
    if picture.mode != "RGB":
        raise locate(f"expected 8 or 16 bits a pixel, got the pixel format {picture.mode!r}", source, image_id)
    return picture


def check_decoded_size(picture: PIL.Image.Image, row: Mapping[str, Any], reduced: bool = False) -> None:
    """Check that the image of a row is as large as its annotations say, because boxes would not fit another image.

    Args:
        picture: the decoded image.
        row: a row of the schema.
        reduced: whether a JPEG may have been decoded at a half, a quarter or an eighth of its size.

    Raises:
        DataError: the image has another size; the error names the file and both sizes.
    """
    stated = (row["width"], row["height"])
    scales = JPEG_SCALES if reduced else (1,)
    if picture.size not in [tuple(-(-side // scale) for side in stated) for scale in scales]:
        image = row["image"]
        raise locate(
            f"the annotations say {stated[0]}x{stated[1]} pixels, but the image is "
            f"{'decoded' if reduced else 'displayed'} at {picture.width}x{picture.height}",
            image.get("path") if isinstance(image, dict) else None,
            row["image_id"],
            field="width, height",
        )


def _opened(image: dict[str, Any], least_edge: int | None, name: str) -> PIL.Image.Image:
    content, path = image.get("bytes"), image.get("path") or ""
    if content is None and not Path(path).is_file():  # in a repository, in an archive, or missing
        return datasets.Image().decode_example(image)
    picture = open_picture(path if content is None else io.BytesIO(content), name)
    if least_edge is not None:
        picture.draft(None, (least_edge, least_edge))
    return picture
