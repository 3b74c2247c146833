"""Turns the predictions of a model into detections, best first. It needs tensors only, and no image processor.

Shapes: B images, Q queries, K classes, N detections. Boxes of predictions are (centre x, centre y, width, height)
relative to the image; boxes of detections are (left, top, right, bottom).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_convert

Classification = Literal["softmax", "sigmoid"]
"""Logits with a trailing no-object class, or one independent logit per class."""

_MOST_PAIRS = 100  # Zhu et al. 2021: detections of an image among all pairs of query and class


def detect_objects(
    logits: Tensor,
    pred_boxes: Tensor,
    classification: Classification,
    *,
    threshold: float = 0.5,
    target_sizes: Tensor | Sequence[Sequence[int]] | None = None,
    top_k: int | None = None,
) -> list[dict[str, Tensor]]:
    """Turn the predictions of a batch into detections, best first.

    Args:
        logits: (B, Q, K + 1) for "softmax", (B, Q, K) for "sigmoid".
        pred_boxes: (B, Q, 4).
        classification: how the logits are read, see `best_classes`.
        threshold: only scores above it are kept.
        target_sizes: (height, width) of each image, a (B, 2) tensor or a list; without it boxes stay relative.
        top_k: see `best_classes`.

    Returns:
        Per image `scores` (N,) float32, `labels` (N,) int64 and `boxes` (N, 4) float32, clipped to the image.

    Raises:
        ValueError: shapes or counts that do not fit together.
    """
    logits, pred_boxes = logits.float(), pred_boxes.float()
    if logits.ndim != 3 or pred_boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(
            f"logits of shape (B, Q, classes) and pred_boxes of shape (B, Q, 4) are expected, "
            f"got {tuple(logits.shape)} and {tuple(pred_boxes.shape)}."
        )
    scores, labels, queries = best_classes(logits, classification, top_k)
    boxes = corners_of(pred_boxes, queries) * box_scale(target_sizes, pred_boxes)
    counts = (scores > threshold).sum(1).tolist()  # the scores are in falling order
    return [
        {"scores": s[:count], "labels": c[:count], "boxes": b[:count]}
        for s, c, b, count in zip(scores, labels, boxes, counts, strict=True)
    ]


def best_classes(
    logits: Tensor, classification: Classification, top_k: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, classes and queries, each (B, N), with falling scores.

    Softmax logits give the best real class of each query. Sigmoid logits give the best pairs of query and class, so
    one query may appear with several classes (Zhu et al. 2021). A query or pair whose logit is NaN comes last.

    Args:
        logits: (B, Q, K + 1) for "softmax", (B, Q, K) for "sigmoid".
        classification: "softmax" or "sigmoid".
        top_k: the largest number of detections per image: by default all queries for softmax, 100 for sigmoid.

    Raises:
        ValueError: `top_k` is not positive, or `classification` is neither.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if classification == "softmax":
        return _best_of_softmax(logits, top_k)
    if classification == "sigmoid":
        return _best_of_sigmoid(logits, top_k)
    raise ValueError(f"classification must be 'softmax' or 'sigmoid', got {classification!r}.")


def corners_of(pred_boxes: Tensor, queries: Tensor) -> Tensor:
    """Return the relative boxes (B, N, 4) of the chosen queries (B, N), clipped to the image."""
    chosen = pred_boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    return box_convert(chosen, "cxcywh", "xyxy").clamp(0, 1)


def box_scale(target_sizes: Tensor | Sequence[Sequence[int]] | None, boxes: Tensor) -> Tensor:
    """Return the factors (B, 1, 4) that turn relative corners into pixels: ones where no sizes are given.

    Args:
        target_sizes: (height, width) of each image in pixels, a (B, 2) tensor or a list.
        boxes: the boxes of B images, for device and dtype.

    Raises:
        ValueError: the sizes are not one pair for each image.
    """
    batch_size = len(boxes)
    if target_sizes is None:
        return boxes.new_ones(batch_size, 1, 4)
    try:
        if not isinstance(target_sizes, Tensor):
            target_sizes = torch.tensor([[float(side) for side in size] for size in target_sizes])
        sizes = target_sizes.to(boxes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"target_sizes must be (height, width) per image, got {target_sizes!r}.") from error
    if sizes.shape != (batch_size, 2):
        raise ValueError(
            f"target_sizes must be (height, width) for each of {batch_size} image(s), got shape {tuple(sizes.shape)}."
        )
    return sizes.flip(1).repeat(1, 2)[:, None]


def _best_of_softmax(logits: Tensor, top_k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    scores = scores.nan_to_num(nan=0.0)  # topk would put NaN first
    scores, queries = scores.topk(min(top_k or logits.shape[1], logits.shape[1]))
    return scores, labels.gather(1, queries), queries


def _best_of_sigmoid(logits: Tensor, top_k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    pairs = logits.flatten(1).nan_to_num(nan=-torch.inf)  # topk would put NaN first
    best, indices = pairs.topk(min(top_k or _MOST_PAIRS, pairs.shape[1]))
    return best.sigmoid(), indices % logits.shape[2], indices // logits.shape[2]
