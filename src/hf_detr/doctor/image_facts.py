"""What the pixels of each image say: whether they can be read, their size, and a fingerprint to find copies by."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps

from ..data.images import EXIF_ORIENTATION, decode_image
from ..data.schema import DataError, SourceImage
from ..machine import cores

THUMBNAIL_SIZE = (9, 8)
"""Width and height of the grey thumbnail: its 8x8 differences along the rows are the difference hash (dHash)."""
DRAFT_SIZE = (72, 64)
"""JPEG files are decoded at an eighth of their size, or what is just above this: every byte is read all the same."""
CHUNK = 256
"""So many images are handed to the threads at once: pictures held in memory are then never held all together."""


@dataclass(frozen=True)
class ImageFacts:
    """What was found in an image file.

    Attributes:
        problem: why it cannot be used, None where it can.
        problem_kind: the kind of the finding that it is.
        size: (width, height) in pixels as displayed, EXIF orientation applied.
        stored_size: (width, height) as stored.
        digest: a hash of the bytes of the file.
        thumbnail: (8, 9) uint8, grey.
        orientation: the EXIF orientation, 1 to 8; 1 is upright.
    """

    problem: str | None = None
    problem_kind: Literal["undeclared_image", "missing_image", "unreadable_image"] = "unreadable_image"
    size: tuple[int, int] | None = None
    stored_size: tuple[int, int] | None = None
    digest: bytes | None = None
    thumbnail: np.ndarray | None = None
    orientation: int = 1

    @property
    def rotated(self) -> bool:
        """Whether it is displayed another way than it is stored, by its EXIF orientation."""
        return self.orientation != 1


def read_all(records: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, ImageFacts]]:
    """Read the pixels of every record in threads (decoding leaves Python's lock); the order is that of the records."""
    records = iter(records)
    with ThreadPoolExecutor(min(32, 2 * cores())) as pool:
        while chunk := list(islice(records, CHUNK)):
            yield from zip(chunk, pool.map(lambda record: image_facts(record.image), chunk), strict=True)


def image_facts(image: Any) -> ImageFacts:
    """Read one image, given as in `SourceImage.image`; a problem is returned, not raised."""
    if image is None:
        return ImageFacts("no image of this id is declared", "undeclared_image")
    if isinstance(image, str | Path):
        image = {"path": str(image), "bytes": None}
    elif not isinstance(image, dict):
        image = datasets.Image().encode_example(image)
    try:
        content = image["bytes"] if image.get("bytes") is not None else Path(image["path"]).read_bytes()
    except FileNotFoundError:
        return ImageFacts("the image file does not exist", "missing_image")
    except OSError as error:
        return ImageFacts(f"the image file cannot be read ({error.strerror or error})")
    if not content:
        return ImageFacts("the image file is empty")
    try:
        return _facts(content)
    except (DataError, OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        # Pillow names the object in memory that it read from: nothing that a reader knows.
        reason = "no image format is recognised" if isinstance(error, PIL.UnidentifiedImageError) else error
        return ImageFacts(f"the image cannot be decoded ({reason})")


def _facts(content: bytes) -> ImageFacts:
    with PIL.Image.open(io.BytesIO(content)) as picture:
        stored_size = picture.size
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
        if picture.mode.startswith(("I", "F")):
            picture = decode_image({"path": None, "bytes": content})
        else:
            picture.draft("L", DRAFT_SIZE)
            picture.load()
            picture = PIL.ImageOps.exif_transpose(picture)
        grey = picture.convert("L").resize(THUMBNAIL_SIZE, PIL.Image.Resampling.BOX)
    return ImageFacts(
        size=stored_size[::-1] if 5 <= orientation <= 8 else stored_size,
        stored_size=stored_size,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
        thumbnail=np.asarray(grey),
    )
