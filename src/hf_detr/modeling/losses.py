"""Groups of predictions → named loss terms → their weighted sum, in float32 or float64.

A new term is a function of a `MatchedGroup` and a row of `TERMS`.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .boxes import box_cxcywh_to_xyxy, generalised_box_iou
from .class_losses import sigmoid_loss
from .configuration import HfDetrConfig
from .matching import HungarianMatcher
from .supervision import MatchedGroup, PredictionGroup
from .targets import Matches


def class_loss(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) the loss of the class logits that the configuration names."""
    return (cross_entropy if config.classification == "softmax" else sigmoid_loss)(group, config)


def cross_entropy(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) weighted mean over all queries of a softmax's cross-entropy, "no object" counting `eos_coefficient`.

    The mean is over the queries of this batch or, so that batches can share a mean, over the queries of `num_images`
    images with `num_boxes` matched objects.
    """
    logits = group.predictions.logits
    no_object = logits.shape[-1] - 1
    classes = torch.full((*logits.shape[:2], logits.shape[2] + 1), no_object, device=logits.device)
    labels = group.targets.class_labels.expand_as(group.slots)
    # objects without a query write into the extra slot, which is dropped
    classes = classes.scatter(2, group.slots, labels)[:, :, :-1]
    weights = logits.new_ones(logits.shape[-1])
    weights[no_object] = config.eos_coefficient
    losses = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), weights, reduction="none")
    total: Tensor | float
    if group.num_images is None:
        total = weights[classes].flatten(1).sum(-1)
    else:
        num_boxes = group.num_boxes
        total = num_boxes + config.eos_coefficient * (group.num_images * logits.shape[2] - num_boxes)
    return losses.unflatten(0, (len(logits), -1)).sum(-1) / total


def box_distance(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) L1 distance of the matched boxes, per object."""
    return group.per_object((group.matched_boxes - group.wanted_boxes).abs().sum(-1))


def box_overlap(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) 1 - generalised IoU of the matched boxes, per object."""
    corners = box_cxcywh_to_xyxy(group.matched_boxes), box_cxcywh_to_xyxy(group.wanted_boxes)
    return group.per_object(1 - generalised_box_iou(*corners))


@torch.no_grad()
def cardinality_error(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) mean absolute error of the number of queries that do not answer the last class; not a loss.

    With a softmax the last class is "no object". The sigmoid models of the literature log the same expression.
    """
    logits = group.predictions.logits
    # `argmax(-1) != last` but for ties, and several times faster
    predicted = (logits.amax(-1) > logits[..., -1]).sum(-1)
    return (predicted - group.targets.valid.sum(-1)).abs().to(group.predictions.boxes.dtype).mean(-1)


class Term(NamedTuple):
    """A term of the loss, or a measure beside it.

    Attributes:
        function: the group and the configuration of the model → (L,), a value for each layer.
        weight: the field of the configuration that it is multiplied by in the sum; None for a measure, which is not
            part of the sum.
        needs: tells the groups that have what it is computed from.
    """

    function: Callable[[MatchedGroup, HfDetrConfig], Tensor]
    weight: str | None
    needs: Callable[[PredictionGroup], bool] = lambda group: True


TERMS = {
    "loss_ce": Term(class_loss, "class_loss_coefficient"),
    "loss_bbox": Term(box_distance, "bbox_loss_coefficient"),
    "loss_giou": Term(box_overlap, "giou_loss_coefficient"),
    # where matches are given, the number of queries that answer says nothing
    "cardinality_error": Term(cardinality_error, None, needs=lambda group: group.matching is None),
}


class Losses(NamedTuple):
    """What the criterion finds.

    Attributes:
        loss: the weighted sum, a scalar.
        loss_dict: every term by name, unweighted; measures that are not part of the sum included.
        matches: of the first group.
    """

    loss: Tensor
    loss_dict: dict[str, Tensor]
    matches: Matches


class Criterion:
    """The losses of a model: matches what is not matched, then computes the terms of every group."""

    def __init__(self, config: HfDetrConfig):
        self.config = config
        self.matcher = HungarianMatcher(config)

    def __call__(
        self, groups: list[PredictionGroup], num_boxes: Tensor | float, num_images: Tensor | float | None = None
    ) -> Losses:
        """Compute all terms.

        Args:
            groups: predictions and what they should have been; the predictions of inference come first.
            num_boxes: the number of objects that all terms but the softmax's are divided by.
            num_images: the images that `num_boxes` was counted over; None for this batch.
        """
        matched_groups = [self.match(group, num_boxes, num_images) for group in groups]
        total = matched_groups[0].predictions.boxes.new_zeros(())
        terms: dict[str, Tensor] = {}
        for group, matched in zip(groups, matched_groups, strict=True):
            for name, term in TERMS.items():
                if not term.needs(group):
                    continue
                values = term.function(matched, self.config)
                if term.weight is not None:
                    total = total + group.weight * getattr(self.config, term.weight) * values.sum()
                terms |= {name + suffix: value for suffix, value in zip(group.suffixes, values, strict=True)}
        return Losses(total, terms, matched_groups[0].matches)

    def match(
        self, group: PredictionGroup, num_boxes: Tensor | float, num_images: Tensor | float | None = None
    ) -> MatchedGroup:
        """The group with its own matches, or with the matches of the least cost."""
        predictions, matches = group.predictions.in_full_precision(), group.matching
        if matches is None:
            matches = self.matcher(predictions.logits, predictions.boxes, group.targets)
        num_boxes = num_boxes * group.copies
        return MatchedGroup(predictions, group.targets, matches, num_boxes, num_images, group.supervised)
