"""Reads the size of an image, and how it is turned, from the header of its file."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from ..processing.image_files import EXIF_ORIENTATION, open_picture
from .schema import DataError, SourceImage, locate
from .threads import in_threads


@dataclass(frozen=True)
class ImageHeader:
    """The facts that the header of an image states.

    Attributes:
        stored_size: (width, height) in pixels as the file stores them.
        orientation: the EXIF orientation, 1 to 8; 1 is upright, 5 to 8 exchange width and height.
    """

    stored_size: tuple[int, int]
    orientation: int = 1

    @property
    def sides_exchanged(self) -> bool:
        """Whether the width of the displayed picture is the height of the stored one."""
        return self.orientation >= 5

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the picture as it is displayed, its EXIF orientation applied."""
        return self.stored_size[::-1] if self.sides_exchanged else self.stored_size


def read_header(image: Path | dict[str, Any], image_id: Any = None) -> ImageHeader:
    """Read the header of an image.

    Args:
        image: a file, or `{"bytes": ..., "path": ...}` as `datasets.Image` stores it.
        image_id: the image id that the error names.

    Raises:
        DataError: the file is missing or is no image.
    """
    source = image if isinstance(image, Path) else Path(image.get("path") or "embedded image")
    content = image if isinstance(image, Path) else io.BytesIO(image["bytes"])
    if isinstance(image, Path) and not image.is_file():
        raise locate("the image file does not exist", source, image_id)
    try:
        with open_picture(content, str(source)) as picture:
            return header_of(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise locate(f"expected an image, but its header cannot be read ({error})", source, image_id) from error


def header_of(picture: PIL.Image.Image) -> ImageHeader:
    """Return the header of a picture that was opened; an orientation that EXIF does not know is upright."""
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    return ImageHeader(picture.size, orientation if orientation in range(1, 9) else 1)


def with_headers(records: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, ImageHeader | DataError | None]]:
    """Return records in their order, each with the result of `header_or_error`. A bar shows slow progress."""
    return in_threads(header_or_error, records, "Reading image sizes")


def header_or_error(record: SourceImage) -> ImageHeader | DataError | None:
    """Return the header of a record's image, or the error why it cannot be read.

    An image that is neither a file nor has bytes gives None.
    """
    image = record.image
    if not isinstance(image, Path) and not (isinstance(image, dict) and image.get("bytes") is not None):
        return None
    try:
        return read_header(image, record.image_id)
    except DataError as error:
        return error
