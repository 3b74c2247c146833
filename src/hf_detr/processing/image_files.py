"""Opens picture files of every format that Pillow reads, and gives each picture as a viewer shows it."""

import os
import re
import warnings
from typing import BinaryIO

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

try:  # where this package is installed, Pillow opens the pictures of Apple's cameras
    from pillow_heif import register_heif_opener

    register_heif_opener()
except ImportError:
    pass

HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
EXIF_ORIENTATION = PIL.ExifTags.Base.Orientation
# ISO/IEC 23008-12: the names that a HEIF file may begin with, after its length and "ftyp"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_SIXTEEN_BITS = 65535
_SIXTEEN_TO_EIGHT = 257  # 65535 / 255


class PictureError(ValueError):
    """A picture cannot be read; the message says why and what to do, and not which picture it is."""


class LargePictureWarning(UserWarning):
    """A picture is so large that Pillow warns of it, and is used all the same."""


def open_picture(source: str | os.PathLike | BinaryIO, name: str | None = None) -> PIL.Image.Image:
    """Open a picture file of any format that Pillow knows, HEIF among them where pillow-heif is installed.

    Only the header is read here.

    Args:
        source: a path, or a file that is open for reading bytes.
        name: the name of the picture in a warning, by default its path. There is no warning for a file without either.

    Raises:
        PictureError: the file is no picture, needs pillow-heif, or has more pixels than Pillow opens.
    """
    try:
        picture = PIL.Image.open(source)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise PictureError(_too_large(source, str(error))) from error
    except PIL.UnidentifiedImageError as error:
        raise PictureError(_unidentified(source)) from error
    except FileNotFoundError as error:
        raise PictureError("the file does not exist") from error
    except Exception as error:  # each of Pillow's formats has its own exceptions
        raise PictureError(str(error) or type(error).__name__) from error
    limit, path = PIL.Image.MAX_IMAGE_PIXELS, source if isinstance(source, str | os.PathLike) else None
    if limit is not None and picture.width * picture.height > limit and (name or path):
        megabytes = round(3e-6 * picture.width * picture.height)
        warnings.warn(
            f"{name or path}: {picture.width}x{picture.height} pixels take {megabytes} MB of memory whenever this "
            "picture is read; make it smaller or cut it into tiles",
            LargePictureWarning,
            stacklevel=2,
        )
    return picture


def displayed_picture(picture: PIL.Image.Image, convert_rgb: bool = True) -> PIL.Image.Image:
    """Return a picture as a viewer shows it: upright, with 8 bits a channel, and the first picture of an animation.

    Args:
        picture: a picture of any mode. Its EXIF orientation is applied; 16-bit values are divided by 257 and rounded.
        convert_rgb: whether it becomes RGB, with transparency laid over white. A picture of floats (mode "F") stays as
            it is.

    Raises:
        PictureError: the picture cannot be decoded, or holds integers that 16 bits cannot hold.
    """
    try:
        picture.load()
        if picture.getexif().get(EXIF_ORIENTATION, 1) != 1:
            picture = PIL.ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I"):
            picture = _eight_bit(picture)
        if not convert_rgb or picture.mode == "F":
            return picture
        if picture.has_transparency_data:
            return _over_white(picture)
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    except PictureError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own exceptions
        raise PictureError(str(error) or type(error).__name__) from error


def _over_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    layer = picture.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _eight_bit(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Scale a grey picture of 16 bits, which Pillow would saturate; older files hold them in 32 (mode "I")."""
    values = np.asarray(picture)
    if values.size and not 0 <= values.min() <= values.max() <= _SIXTEEN_BITS:
        found = f"{picture.mode!r} with values {values.min()}..{values.max()}"
        raise PictureError(f"expected 8 or 16 bits a pixel, got the pixel format {found}")
    return PIL.Image.fromarray((values.astype(np.float32) / _SIXTEEN_TO_EIGHT).round().astype(np.uint8))


def _unidentified(source: str | os.PathLike | BinaryIO) -> str:
    """Say why Pillow does not know the format of a file."""
    start = _beginning(source)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "it is a HEIF picture, which Pillow opens where pillow-heif is installed: pip install pillow-heif"
    if not start:
        return "the file is empty"
    return "it is in no picture format that Pillow knows"


def _too_large(source: str | os.PathLike | BinaryIO, message: str) -> str:
    size, count = _stated_size(source), re.search(r"\d+", message)  # Pillow gives the number of pixels
    pixels = f"{size[0]}x{size[1]}" if size else f"{int(count[0]):,}" if count else "many"
    limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)  # from once this number on Pillow warns, from twice on it refuses
    return (
        f"its {pixels} pixels are more than the {limit:,} that Pillow opens, as a small file can unpack to fill the "
        "memory; make the picture smaller, cut it into tiles or leave it out"
    )


def _stated_size(source: str | os.PathLike | BinaryIO) -> tuple[int, int] | None:
    """Return the (width, height) in the header of a file that Pillow refuses to open for its size."""
    start = _beginning(source)
    for factory, accept in PIL.Image.OPEN.values():
        if accept is None or accept(start) is True:
            try:
                if not isinstance(source, str | os.PathLike):
                    source.seek(0)
                    return factory(source, "").size
                with open(source, "rb") as file:
                    return factory(file, "").size
            except Exception:  # the next format may know it
                continue
    return None


def _beginning(source: str | os.PathLike | BinaryIO) -> bytes:
    """Return the first bytes of a file, by which its format is known."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(16)
    source.seek(0)
    return source.read(16)
