"""Reading images so that every failure names the file: headers when a data set is read, pixels when it is used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
from datasets import Dataset
from tqdm.contrib.concurrent import thread_map

from .schema import DataError, locate

EXIF_ORIENTATION = PIL.Image.ExifTags.Base.Orientation
SIXTEEN_BITS = 65535
PROGRESS_FROM = 2000
"""With more images than this, reading their headers takes long enough to show progress."""


def displayed_size(path: Path, image_id: int | None = None) -> tuple[int, int]:
    """Return the (width, height) of an image file as it is displayed, EXIF orientation applied, from its header.

    Raises:
        DataError: the file is missing or is no image.
    """
    if not path.is_file():
        raise locate("the image file does not exist", path, image_id)
    try:
        with PIL.Image.open(path) as image:
            size, orientation = image.size, image.getexif().get(EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise locate(f"expected an image, but its header cannot be read ({error})", path, image_id) from error
    return size[::-1] if 5 <= orientation <= 8 else size


def size_from_header(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Return what `displayed_size` does, or (None, None) where there is nothing to read it from."""
    try:
        return displayed_size(path)
    except DataError:
        return None, None


def sizes_from_headers(paths: Sequence[Path]) -> list[tuple[int, int] | tuple[None, None]]:
    """Return `size_from_header` of many files, with a progress bar where it takes long."""
    return thread_map(
        size_from_header,
        paths,
        desc="Reading image sizes",
        disable=len(paths) <= PROGRESS_FROM,
        max_workers=8,
        leave=False,
    )


def undecoded(dataset: Dataset) -> Dataset:
    """Return the same data set with its images as files and bytes, left for `decode_image`.

    `datasets` decodes on access, and what it raises for a broken file does not say which one; a row taken undecoded
    lets the collator name the file and the image id.
    """
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def decode_image(image: PIL.Image.Image | dict[str, Any], image_id: int | None = None) -> PIL.Image.Image:
    """Return the `image` of a row as an RGB picture the way it is displayed (EXIF orientation applied).

    Transparency is laid over white and 16-bit pixels are scaled, as the image processor does for inference.

    Raises:
        DataError: the image is truncated or otherwise unreadable, or its pixels are neither 8- nor 16-bit integers.
    """
    source = "image" if isinstance(image, PIL.Image.Image) else image.get("path") or "embedded image"
    try:
        picture = datasets.Image().decode_example(image) if isinstance(image, dict) else image
        picture = PIL.ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise locate(f"the image cannot be decoded ({error})", source, image_id) from error
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bit(picture, source, image_id)
    if picture.has_transparency_data:
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _eight_bit(picture: PIL.Image.Image, source: str, image_id: int | None) -> PIL.Image.Image:
    """Scale a grey picture of 16 bits, which Pillow would saturate; it may hold them in 32 (mode "I")."""
    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F" or not 0 <= values.min() <= values.max() <= SIXTEEN_BITS:
        problem = f"expected 8 or 16 bits a pixel, got the pixel format {picture.mode!r}"
        raise locate(f"{problem} with values from {values.min()} to {values.max()}", source, image_id)
    return PIL.Image.fromarray((values / (SIXTEEN_BITS / 255)).round().astype(np.uint8))
