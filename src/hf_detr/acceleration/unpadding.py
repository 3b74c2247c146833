"""A padded batch → batches of images of one size each, without padding, and their detections → one batch again.

On a CPU padding costs what pixels cost, and a batch gains little over its images one by one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

JOINED = ("logits", "pred_boxes", "last_hidden_state")
"""What is joined of the outputs: what does not depend on the size of the images."""
NEVER_DETECTED = {"logits": -torch.inf}
"""What fills up images so small that they have fewer queries than others; zero elsewhere."""

Size = tuple[int, int]


def image_sizes(pixel_mask: Tensor) -> list[Size] | None:
    """Heights and widths of the images in a padded batch, None if one is not padded at the right and below only.

    Args:
        pixel_mask: (B, height, width), true or 1 on real pixels.
    """
    mask = pixel_mask.bool()
    heights, widths = mask.any(2).sum(1).tolist(), mask.any(1).sum(1).tolist()
    sizes = list(zip(heights, widths, strict=True))
    whole = all(height * width and mask[i, :height, :width].all() for i, (height, width) in enumerate(sizes))
    return sizes if whole else None


def by_size(sizes: list[Size]) -> Iterator[tuple[Size, list[int]]]:
    """The sizes, each with the numbers of its images."""
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    yield from groups.items()


def run_by_size(
    model: Callable[[Tensor], Mapping[str, Any]], pixel_values: Tensor, sizes: list[Size]
) -> dict[str, Tensor]:
    """Run a model on the images of each size without their padding; return `JOINED` in the order of the batch.

    Args:
        model: from (B, 3, height, width) to outputs.
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
    """(B, Q, …) tensors → one; where Q differs, the missing queries are filled in."""
    most = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, 0, 0, most - part.shape[1]), value=filling) for part in parts])
