"""Reads the file of each image: whether it can be used, its size, and a fingerprint by which copies are found."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.image_headers import ImageHeader, header_of
from ..data.look_alikes import Fingerprint, fingerprint_of, image_bytes
from ..data.schema import SourceImage
from ..data.threads import in_threads
from ..processing.image_files import open_picture


@dataclass(frozen=True)
class ImageFacts:
    """The facts that were found in an image file.

    Attributes:
        problem: the reason why it cannot be used, or None where it can.
        problem_kind: the kind of finding that the problem is.
        header: the size and orientation, where the header can be read; the pixels behind it may be damaged.
        fingerprint: the fingerprint by which the image is compared, where the file can be used.
    """

    problem: str | None = None
    problem_kind: Literal["undeclared_image", "missing_image", "unreadable_image"] = "unreadable_image"
    header: ImageHeader | None = None
    fingerprint: Fingerprint | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels as displayed, its EXIF orientation applied."""
        return None if self.header is None else self.header.size


def read_all(records: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, ImageFacts]]:
    """Read the image of every record, in the order of the records."""
    return in_threads(lambda record: image_facts(record.image), records)


def image_facts(image: Any) -> ImageFacts:
    """Read one image, given as in `SourceImage.image`; a problem is returned, not raised."""
    if image is None:
        return ImageFacts("no image of this id is declared", "undeclared_image")
    try:
        content = image_bytes(image)
    except FileNotFoundError:
        return ImageFacts("the image file does not exist", "missing_image")
    except OSError as error:
        return ImageFacts(f"the image file cannot be read ({error.strerror or error})")
    if not content:
        return ImageFacts("the image file is empty")
    header = None
    try:
        with open_picture(io.BytesIO(content), _name(image)) as picture:
            header = header_of(picture)
        return ImageFacts(header=header, fingerprint=fingerprint_of(content))
    except (OSError, SyntaxError, ValueError) as error:
        return ImageFacts(f"the image cannot be decoded ({error})", header=header)


def _name(image: Any) -> str:
    """Return what a warning calls the image of a record."""
    path = image.get("path") if isinstance(image, dict) else image
    return str(path) if isinstance(path, str | Path) else "an embedded image"
