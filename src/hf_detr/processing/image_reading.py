"""Reads pictures, paths, URLs and arrays of every kind into tensors of channels, height and width."""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from transformers.image_utils import ChannelDimension, load_image

from .image_files import PictureError, displayed_picture, open_picture

_CHANNEL_COUNTS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGB and alpha


def named_images(images: Any, name: str = "images") -> Iterator[tuple[str, Any]]:
    """Yield (name, image) for every image of an image, a batch, or a nested list; the name tells its position."""
    is_batch = isinstance(images, np.ndarray | Tensor) and images.ndim == 4
    if isinstance(images, list | tuple) or is_batch:
        for index, item in enumerate(images):
            yield from named_images(item, f"{name}[{index}]")
    else:
        yield name, images


def read_image(
    image: Any,
    name: str,
    do_convert_rgb: bool | None,
    do_rescale: bool | None,
    input_data_format: str | ChannelDimension | None,
    device: str | torch.device | None,
) -> Tensor:
    """Return an image of any kind that the image processor takes as a tensor (C, h, w), uint8 or float32.

    Values are on the 0..255 scale, unless they are floats that `do_rescale` leaves alone.

    Raises:
        ValueError: the image cannot be read; the message begins with `name`.
    """
    if isinstance(image, str | os.PathLike):
        image = _open(image, name)
    prefer_channels_last = not isinstance(image, Tensor)
    if isinstance(image, PIL.Image.Image):
        image = _decode(image, do_convert_rgb, name)
        input_data_format = ChannelDimension.LAST
    if isinstance(image, np.ndarray):
        image = _tensor_from_array(image, name)
    if not isinstance(image, Tensor):
        raise ValueError(f"{name}: expected a PIL image, NumPy array or tensor, got {type(image).__name__}.")
    image = _channels_first(image, input_data_format, prefer_channels_last, name)
    image = _eight_bit_scale(image.to(device), do_rescale, name)
    return _to_rgb(image, name) if do_convert_rgb else image


def _open(source: str | os.PathLike, name: str) -> PIL.Image.Image:
    try:
        return open_picture(source) if os.path.isfile(source) else load_image(os.fspath(source))
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: cannot open an image at {os.fspath(source)!r}: {error}") from error


def _decode(picture: PIL.Image.Image, convert_rgb: bool | None, name: str) -> np.ndarray:
    """Return the displayed picture as an array: HW for one channel, else HWC."""
    try:
        return np.array(displayed_picture(picture, bool(convert_rgb)))
    except PictureError as error:
        file = getattr(picture, "filename", "") or "a file object"
        raise ValueError(f"{name}: the image in {file} cannot be decoded: {error}") from error


def _tensor_from_array(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected an array of numbers, got dtype {array.dtype}.")
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    # torch takes neither negative strides nor foreign byte orders, and warns of read-only memory
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _channels_first(image: Tensor, layout: str | ChannelDimension | None, prefer_last: bool, name: str) -> Tensor:
    if image.ndim == 2:
        image, layout = image[None], ChannelDimension.FIRST
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name}: expected a non-empty image of 2 or 3 dimensions, got shape {tuple(image.shape)}.")
    if layout is None:
        first, last = (image.shape[axis] in _CHANNEL_COUNTS for axis in (0, 2))
        if not first and not last:
            raise ValueError(
                f"{name}: neither end of shape {tuple(image.shape)} can be a channel axis of 1 to 4 channels; "
                "input_data_format='channels_first' or 'channels_last' says which one is."
            )
        layout = ChannelDimension.LAST if last and (prefer_last or not first) else ChannelDimension.FIRST
    return image.permute(2, 0, 1) if ChannelDimension(layout) == ChannelDimension.LAST else image


def _eight_bit_scale(image: Tensor, do_rescale: bool | None, name: str) -> Tensor:
    """Return uint8 or float32 in 0..255 for any number type. Floats that will not be rescaled keep their values."""
    if image.dtype == torch.uint8:
        return image
    if image.dtype == torch.bool:
        return image.to(torch.uint8) * 255
    if image.dtype == torch.uint16:
        return (image.to(torch.float32) / 257).round().to(torch.uint8)
    floating = image.is_floating_point()
    image = image.to(torch.float32 if floating else torch.int64)
    low, high = (bound.item() for bound in image.aminmax())
    if floating and not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: values must be finite, got NaN or infinity.")
    if floating and not do_rescale:
        return image
    if low < 0 or high > 255:
        remedy = "do_rescale=False takes floats as they are" if floating else "a 16-bit image has dtype uint16"
        raise ValueError(f"{name}: expected values in 0..255, got {low}..{high} ({remedy}).")
    if not floating:
        return image.to(torch.uint8)
    return image * 255 if high <= 1 else image


def _to_rgb(image: Tensor, name: str) -> Tensor:
    channels = image.shape[0]
    if channels not in _CHANNEL_COUNTS:
        raise ValueError(f"{name}: expected 1 to 4 channels, got {channels} of size {tuple(image.shape[1:])}.")
    if channels in (2, 4):
        white = 255.0 if image.dtype == torch.uint8 or image.max() > 1 else 1.0
        colour, opacity = image[:-1].float(), image[-1:].float() / white
        blended = colour * opacity + white * (1 - opacity)
        image = blended.round().to(torch.uint8) if image.dtype == torch.uint8 else blended
    return image.expand(3, -1, -1)
