"""Which files are pictures, and decoding them so that every failure names the file."""

import io
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
from datasets import Dataset

from .image_headers import EXIF_ORIENTATION
from .schema import locate

try:  # with this package installed, Pillow opens the pictures of Apple's cameras
    from pillow_heif import register_heif_opener

    register_heif_opener()
except ImportError:
    pass

NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by their names, but that hold vectors, films or tables, or that need another program."""


def _image_suffixes() -> frozenset[str]:
    PIL.Image.init()
    return frozenset({".mpo"}) | frozenset(  # JPEGs of several pictures, which Pillow opens as JPEG
        suffix
        for suffix, kind in PIL.Image.registered_extensions().items()
        if kind in PIL.Image.OPEN and kind not in NO_PICTURES
    )


IMAGE_SUFFIXES = _image_suffixes()
"""The suffixes, in small letters, of every format that Pillow opens."""

SIXTEEN_BITS = 65535
JPEG_SCALES = (1, 2, 4, 8)


def is_image(path: str | PurePath) -> bool:
    """Return whether a file is a picture by the suffix of its name, in small or capital letters."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def undecoded(dataset: Dataset) -> Dataset:
    """Return the same data set with its images as files and bytes, left for `decode_image`.

    `datasets` decodes on access, and what it raises for a broken file does not say which one; a row taken undecoded
    lets the collator name the file and the image id.
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
        image_id: for the error.
        least_edge: a JPEG may be decoded at a half, a quarter or an eighth of its size, which is faster, as long as
            no edge gets shorter than this.

    Raises:
        DataError: the image is truncated or otherwise unreadable, or its pixels are neither 8- nor 16-bit integers.
    """
    source = "image" if isinstance(image, PIL.Image.Image) else image.get("path") or "embedded image"
    try:
        picture = _opened(image, least_edge) if isinstance(image, dict) else image
        if picture.getexif().get(EXIF_ORIENTATION, 1) != 1:
            picture = PIL.ImageOps.exif_transpose(picture)
        picture.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise locate(f"the image cannot be decoded ({error})", source, image_id) from error
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bit(picture, source, image_id)
    if picture.has_transparency_data:
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def check_decoded_size(picture: PIL.Image.Image, row: Mapping[str, Any], reduced: bool = False) -> None:
    """Check that the image of a row is as large as its annotations say: boxes of another image would be nonsense.

    Args:
        picture: the decoded image.
        row: a row of the schema.
        reduced: whether a JPEG may have been decoded at a half, a quarter or an eighth of its size.

    Raises:
        DataError: it is not; the error names the file and both sizes.
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


def _opened(image: dict[str, Any], least_edge: int | None) -> PIL.Image.Image:
    content, path = image.get("bytes"), image.get("path") or ""
    if least_edge is None or (content is None and not Path(path).is_file()):
        return datasets.Image().decode_example(image)
    picture = PIL.Image.open(path if content is None else io.BytesIO(content))
    picture.draft(None, (least_edge, least_edge))
    return picture


def _eight_bit(picture: PIL.Image.Image, source: str, image_id: int | None) -> PIL.Image.Image:
    """Scale a grey picture of 16 bits, which Pillow would saturate; it may hold them in 32 (mode "I")."""
    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F" or not 0 <= values.min() <= values.max() <= SIXTEEN_BITS:
        problem = f"expected 8 or 16 bits a pixel, got the pixel format {picture.mode!r}"
        raise locate(f"{problem} with values from {values.min()} to {values.max()}", source, image_id)
    return PIL.Image.fromarray((values / (SIXTEEN_BITS / 255)).round().astype(np.uint8))
