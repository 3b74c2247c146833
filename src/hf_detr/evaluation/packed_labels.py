"""Packs detection labels into one tensor.

`Trainer` and accelerate pad, gather and truncate tensors by their first dimension. They reach inside a list of
dicts and cut each image's boxes to the size of the last batch, so labels travel packed during evaluation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

PADDING = -100.0
"""The value that `Trainer` pads with."""


def pack_labels(labels: Sequence[dict[str, Tensor]]) -> Tensor:
    """Pack the labels of a batch of B images with at most N objects each.

    Args:
        labels: one dict an image with `image_id` (1,), `orig_size` (2,) as (height, width), `class_labels` (T,) and
            `boxes` (T, 4), normalised (cx, cy, w, h).

    Returns:
        (B, 1 + N, 6) float64, in which integers up to 2^53 are exact: a header row (image_id, height, width, T, and
        padding), T rows (class, cx, cy, w, h, and padding), then rows of -100.
    """
    rows = 1 + max(len(label["class_labels"]) for label in labels)
    packed = torch.full((len(labels), rows, 6), PADDING, dtype=torch.float64)
    for image, label in zip(packed, labels, strict=True):
        count = len(label["class_labels"])
        image[0, 0] = label["image_id"].item()
        image[0, 1:3] = label["orig_size"]
        image[0, 3] = count
        image[1 : 1 + count, 0] = label["class_labels"]
        image[1 : 1 + count, 1:5] = label["boxes"]
    return packed


def unpack_labels(packed: Tensor) -> list[dict[str, Tensor]]:
    """Turn the tensor of `pack_labels`, padded further or not, back into one dict an image, in the same dtypes."""
    labels = []
    for image in packed.cpu():
        count = int(image[0, 3])
        labels.append(
            {
                "image_id": image[0, :1].long(),
                "orig_size": image[0, 1:3].long(),
                "class_labels": image[1 : 1 + count, 0].long(),
                "boxes": image[1 : 1 + count, 1:5].float(),
            }
        )
    return labels
