"""Cuts a padded batch into batches of images of one size without padding, and joins their detections again.

On a CPU padding costs as much as pixels, and a batch is hardly faster than its images one by one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

JOINED = ("logits", "pred_boxes", "last_hidden_state")
"""The outputs that are joined: they do not depend on the size of the images."""
NEVER_DETECTED = {"logits": -torch.inf}
"""The values of queries that fill up an image too small to have as many as others; other outputs get zeros."""

Size = tuple[int, int]


def image_sizes(pixel_mask: Tensor) -> list[Size] | None:
    """Return height and width of each image in a padded batch; None if one is padded elsewhere than right and below.

    Args:
        pixel_mask: (B, height, width), true or 1 on real pixels.
    """
    mask = pixel_mask.bool()
    heights, widths = mask.any(2).sum(1).tolist(), mask.any(1).sum(1).tolist()
    sizes = list(zip(heights, widths, strict=True))
    whole = all(height * width and mask[i, :height, :width].all() for i, (height, width) in enumerate(sizes))
    return sizes if whole else None


def by_size(sizes: list[Size]) -> Iterator[tuple[Size, list[int]]]:
    """Yield the different sizes, each with the positions of its images in the batch."""
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    yield from groups.items()


def run_by_size(
    model: Callable[[Tensor], Mapping[str, Any]], pixel_values: Tensor, sizes: list[Size]
) -> dict[str, Tensor]:
    """Run a model on the images of each size without their padding; return `JOINED` in the order of the batch.

    Args:
        model: makes outputs of pixels (B, 3, height, width).
        pixel_values: (B, 3, height, width), padded.
        sizes: the height and width of each image.
    """
    order, found = [], []
    for (height, width), indices in by_size(sizes):
        found.append(model(pixel_values[indices, :, :height, :width]))
        order += indices
    places = torch.tensor(order).argsort().to(pixel_values.device)
    return {name: join([outputs[name] for outputs in found], NEVER_DETECTED.get(name, 0.0))[places] for name in JOINED}


def join(parts: list[Tensor], filling: float) -> Tensor:
    """Join tensors (B, Q, …) to one. Where Q differs, the missing queries are filled in."""
    most = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, 0, 0, most - part.shape[1]), value=filling) for part in parts])
