"""Resizes and normalises the pixels of a batch, and puts the images on a canvas on which all of them fit.

Sizes are always (height, width).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

_BAND = 64
"""The number of rows of an image that are rescaled and normalised at once."""


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
    **kwargs: Any,
) -> Tensor | list[Tensor]:
    """Put each image in the top left of a zero canvas, and normalise it in place as `pixels * scale + offset`."""
    channels, device = images[0].shape[0], images[0].device
    changes = do_rescale or do_normalize
    keeps_bytes = not changes and all(image.dtype == torch.uint8 for image in images)
    dtype = torch.uint8 if keeps_bytes else torch.float32
    batch: Tensor | list[Tensor]
    if as_batch:
        batch = torch.empty((len(images), channels, *canvases[0]), dtype=dtype, device=device)
    else:
        batch = [torch.empty((channels, *canvas), dtype=dtype, device=device) for canvas in canvases]
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
    """Return all rows of an image, on a CPU in bands that its cache still holds when they are touched again."""
    rows = _BAND if device.type == "cpu" else height
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _scale_and_offset(
    channels: int, rescale_factor: float, image_mean: float | Sequence[float], image_std: float | Sequence[float]
) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (image_mean, image_std))
    if any(len(value) not in (1, channels) for value in (mean, std)) or (std == 0).any():
        raise ValueError(
            f"image_mean and image_std must each have 1 or {channels} values and no zero in image_std, "
            f"got {mean.flatten().tolist()} and {std.flatten().tolist()}."
        )
    return (rescale_factor / std).float(), (-mean / std).float()


def pixel_mask(sizes: list[tuple[int, int]], canvas: tuple[int, int], device: torch.device) -> Tensor:
    """Return the mask (B, H, W) int64, 1 where an image is."""
    mask = torch.ones((len(sizes), *canvas), dtype=torch.int64, device=device)
    for image_mask, (height, width) in zip(mask, sizes, strict=True):
        image_mask[height:], image_mask[:height, width:] = 0, 0
    return mask


def on_canvas(images: Sequence[Tensor], canvas: tuple[int, int]) -> Tensor:
    """Return the images (C, h, w), unchanged, each in the top left of a zero canvas: (B, C, H, W)."""
    batch = images[0].new_zeros((len(images), len(images[0]), *canvas))
    for image, place in zip(images, batch, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch
