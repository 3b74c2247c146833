"""Images of one batch: their size after resizing, the canvas that all fit on, and their normalised pixels on it.

Sizes are always (height, width).
"""

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import SizeDict, get_image_size_for_max_height_width

_BAND = 64
"""Rows of an image that are rescaled and normalised at once."""


def resized_size(image_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    """The size of an image after resizing as `HfDetrImageProcessor` describes it; no side is less than a pixel."""
    if size.height is not None:
        return size.height, size.width
    if size.shortest_edge is not None:
        height, width = get_size_with_aspect_ratio(image_size, size.shortest_edge, size.longest_edge)
    elif size.max_height is not None:
        height, width = get_image_size_for_max_height_width(image_size, size.max_height, size.max_width)
    else:
        height, width = (round(side * size.longest_edge / max(image_size)) for side in image_size)
    return max(height, 1), max(width, 1)  # extreme aspect ratios would round to an empty image


def canvas_sizes(
    sizes: list[tuple[int, int]], size: SizeDict | None, pad_size: SizeDict | None, size_divisor: int | None
) -> list[tuple[int, int]]:
    """The one padded size of a batch, repeated for each image."""
    largest = tuple(max(side) for side in zip(*sizes, strict=True))
    if pad_size is not None:
        canvas = (pad_size.height, pad_size.width)
    elif size is not None and set(dict(size)) == {"longest_edge"}:
        canvas = (size.longest_edge, size.longest_edge)
    else:
        canvas = largest
    if canvas[0] < largest[0] or canvas[1] < largest[1]:
        raise ValueError(f"pad_size (height, width) {canvas} is smaller than the largest resized image, {largest}.")
    divisor = size_divisor or 1
    height, width = (math.ceil(side / divisor) * divisor for side in canvas)
    return [(height, width)] * len(sizes)


def resize_with_pillow(image: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    """Resize (C, h, w), uint8 or float32, with a filter of Pillow."""
    if tuple(image.shape[-2:]) == size:
        return image
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if image.dtype == torch.uint8 and image.shape[0] == 3:
        layers = [np.ascontiguousarray(pixels)]
    else:  # Pillow has floats and odd channel counts only as single channels
        layers = [np.ascontiguousarray(pixels[..., channel]) for channel in range(image.shape[0])]
    resized = [np.array(PIL.Image.fromarray(layer).resize(size[::-1], resample)) for layer in layers]
    return torch.from_numpy(np.dstack(resized)).permute(2, 0, 1)


def normalise(
    images: list[Tensor],
    canvases: list[tuple[int, int]],
    *,
    as_batch: bool,
    do_rescale: bool | None,
    rescale_factor: float,
    do_normalize: bool | None,
    image_mean: float | Sequence[float],
    image_std: float | Sequence[float],
    **kwargs,
) -> Tensor | list[Tensor]:
    """Each image in the top left of a zero canvas, rescaled and normalised in place as `pixels * scale + offset`."""
    channels, device = images[0].shape[0], images[0].device
    changes = do_rescale or do_normalize
    keeps_bytes = not changes and all(image.dtype == torch.uint8 for image in images)
    unwritten = {"dtype": torch.uint8 if keeps_bytes else torch.float32, "device": device}
    if as_batch:
        batch = torch.empty((len(images), channels, *canvases[0]), **unwritten)
    else:
        batch = [torch.empty((channels, *canvas), **unwritten) for canvas in canvases]
    mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
    scale, offset = _scale_and_offset(channels, rescale_factor if do_rescale else 1.0, mean, std)
    scale, offset = scale.to(device), offset.to(device)
    for image, canvas in zip(images, batch, strict=True):
        height, width = image.shape[-2:]
        real = canvas[:, :height, :width]
        if not changes:
            real.copy_(image)
        for rows in _bands(height, device) if changes else ():
            real[:, rows].copy_(image[:, rows]).mul_(scale).add_(offset)
        canvas[:, height:], canvas[:, :height, width:] = 0, 0
    return batch


def _bands(height: int, device: torch.device) -> list[slice]:
    """All rows of an image; on a CPU in bands that its cache still holds when they are touched again."""
    rows = _BAND if device.type == "cpu" else height
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _scale_and_offset(
    channels: int, rescale_factor: float, mean: float | Sequence[float], std: float | Sequence[float]
) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (mean, std))
    if any(len(value) not in (1, channels) for value in (mean, std)) or (std == 0).any():
        raise ValueError(
            f"image_mean and image_std must each have 1 or {channels} values and no zero in image_std, "
            f"got {mean.flatten().tolist()} and {std.flatten().tolist()}."
        )
    return (rescale_factor / std).float(), (-mean / std).float()


def pixel_mask(sizes: list[tuple[int, int]], canvas: tuple[int, int], device: torch.device) -> Tensor:
    """(B, H, W) int64, 1 where an image is."""
    mask = torch.ones((len(sizes), *canvas), dtype=torch.int64, device=device)
    for image_mask, (height, width) in zip(mask, sizes, strict=True):
        image_mask[height:], image_mask[:height, width:] = 0, 0
    return mask
