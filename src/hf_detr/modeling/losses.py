"""Supervised sets → named loss terms → their weighted sum, in float32 or float64.

A supervised set is one kind of prediction of all layers at once: the decoder's, the encoder's proposals, the
denoising queries'. Every term is computed for all its layers together.

With a sigmoid per class all classification losses are a weighted cross-entropy. Almost all logits belong to no object:
their target is 0 and their weight a power of the probability p, so one function serves all losses (`background`). What
is left to a row of `SIGMOID_LOSSES` is the target and the weight at the few logits that belong to an object. Gradients
are those of the equations, weights included.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .boxes import box_cxcywh_to_xyxy, box_iou, generalised_box_iou
from .class_losses import SIGMOID_LOSSES, BackgroundSum, background
from .configuration import HfDetrConfig
from .matching import HungarianMatcher
from .targets import Matches, Targets


@dataclass
class SupervisedSet:
    """Predictions and what they should have been.

    Attributes:
        suffixes: of the names of the loss terms, one per layer ("" for the last decoder layer).
        logits: (L, B, Q, K).
        boxes: (L, B, Q, 4) normalised cxcywh.
        targets: the objects.
        matches: the query of each object.
        num_boxes: normaliser of all terms but the softmax's.
        supervised: (B, Q), False for queries whose class does not count, or None.
        kind: "one_to_one" predictions answer each object once, "one_to_many" ones several times; "denoising" queries
            were made from the objects.
        weight: of all its terms in the sum.
    """

    suffixes: list[str]
    logits: Tensor
    boxes: Tensor
    targets: Targets
    matches: Matches
    num_boxes: Tensor
    supervised: Tensor | None = None
    kind: Literal["one_to_one", "one_to_many", "denoising"] = "one_to_one"
    weight: float = 1.0

    @property
    def slots(self) -> Tensor:
        """(L, B, T) matched query of each object; Q, one past the last, where there is none."""
        num_queries = self.logits.shape[2]
        return self.matches.query_index.masked_fill(~self.matches.matched, num_queries).expand(
            len(self.logits), -1, -1
        )

    @property
    def matched(self) -> Tensor:
        """(L, B, T) whether each object has a query."""
        return self.matches.matched.expand(len(self.logits), -1, -1)

    def matched_boxes(self) -> Tensor:
        """(L, B, T, 4) predicted box of each object; meaningless where not matched."""
        index = self.slots.clamp(max=self.logits.shape[2] - 1)
        return self.boxes.gather(2, index[..., None].expand(-1, -1, -1, 4))

    @torch.no_grad()
    def qualities(self) -> Tensor:
        """(L, B, T) IoU of each object with the predicted box; meaningless where not matched."""
        predicted = self.matched_boxes()
        iou, _ = box_iou(box_cxcywh_to_xyxy(predicted), box_cxcywh_to_xyxy(self.targets.boxes.to(predicted)))
        return iou

    def matched_logits(self) -> Tensor:
        """(L, B, T) logit of each object's class at its query; meaningless where not matched."""
        num_classes = self.logits.shape[-1]
        index = self.slots.clamp(max=self.logits.shape[2] - 1) * num_classes + self.targets.class_labels
        return self.logits.flatten(2).gather(2, index)


class Criterion:
    """The losses of a model: `HungarianMatcher` and the terms that the config asks for."""

    def __init__(self, config: HfDetrConfig):
        self.matcher = HungarianMatcher(config)
        self.classification = config.classification
        self.eos_coefficient, self.focal_alpha = config.eos_coefficient, config.focal_alpha
        self.last_matches: Matches | None = None
        self.weights = {
            "loss_ce": config.class_loss_coefficient,
            "loss_bbox": config.bbox_loss_coefficient,
            "loss_giou": config.giou_loss_coefficient,
        }

    def __call__(
        self, sets: list[SupervisedSet], num_images: Tensor | float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every term by name (unweighted; measures that are not part of the sum included).

        `num_images` is the number of images over which the objects of `num_boxes` were counted, None for this batch.
        The matches of the first set stay in `last_matches`, for whoever watches the matching.
        """
        self.last_matches = sets[0].matches
        total, terms = sets[0].boxes.new_zeros(()), {}
        for supervised_set in sets:
            for name, values in self.terms(supervised_set, num_images).items():
                if name in self.weights:
                    total = total + supervised_set.weight * self.weights[name] * values.sum()
                terms |= {name + suffix: value for suffix, value in zip(supervised_set.suffixes, values, strict=True)}
        return total, terms

    def terms(self, predictions: SupervisedSet, num_images: Tensor | float | None = None) -> dict[str, Tensor]:
        """Each term as a vector over the layers of the set."""
        softmax = self.classification == "softmax"
        loss_ce = self.cross_entropy(predictions, num_images) if softmax else self.sigmoid_loss(predictions)
        terms = {"loss_ce": loss_ce, **self.box_losses(predictions)}
        if predictions.kind == "one_to_one":  # the number of other queries says nothing
            terms["cardinality_error"] = cardinality_error(predictions)
        return terms

    def cross_entropy(self, predictions: SupervisedSet, num_images: Tensor | float | None = None) -> Tensor:
        """(L,) weighted mean over all queries, "no object" counting `eos_coefficient`.

        The queries are those of this batch or, so that batches can share a mean, of `num_images` images with
        `num_boxes` matched objects.
        """
        logits = predictions.logits
        no_object = logits.shape[-1] - 1
        classes = torch.full((*logits.shape[:2], logits.shape[2] + 1), no_object, device=logits.device)
        labels = predictions.targets.class_labels.expand_as(predictions.slots)
        # objects without a query write into the extra slot, which is dropped
        classes = classes.scatter(2, predictions.slots, labels)[:, :, :-1]
        weights = logits.new_ones(logits.shape[-1])
        weights[no_object] = self.eos_coefficient
        losses = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), weights, reduction="none")
        if num_images is None:
            total = weights[classes].flatten(1).sum(-1)
        else:
            num_boxes = predictions.num_boxes
            total = num_boxes + self.eos_coefficient * (num_images * logits.shape[2] - num_boxes)
        return losses.unflatten(0, (len(logits), -1)).sum(-1) / total

    def sigmoid_loss(self, predictions: SupervisedSet) -> Tensor:
        """(L,) weighted binary cross-entropy, summed over queries and classes, per object.

        Denoising queries stay with the focal loss under position supervision, as published.
        """
        plain = self.classification == "position_supervised" and predictions.kind == "denoising"
        kind = SIGMOID_LOSSES["focal" if plain else self.classification]
        scale = 1 - self.focal_alpha if kind.balanced else 1.0
        layers, supervised = len(predictions.logits), predictions.supervised
        if supervised is not None:
            supervised = supervised.repeat(layers, 1)
        elsewhere = BackgroundSum.apply(predictions.logits.flatten(0, 1), kind.gamma, supervised)

        matched, logits = predictions.matched, predictions.matched_logits()
        # the focal loss asks for no overlaps, so none are computed for it
        quality = predictions.qualities().where(matched, 0.0) if kind.uses_quality else None
        target, weight = kind.at_objects(logits.sigmoid(), quality, self.focal_alpha)
        found = weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # where, not a product: a padded slot may hold a NaN
        at_objects = torch.where(matched, found - scale * background(logits, kind.gamma), 0.0)
        return (scale * elsewhere.view(layers, -1) + at_objects.sum(-1)).sum(-1) / predictions.num_boxes

    def box_losses(self, predictions: SupervisedSet) -> dict[str, Tensor]:
        """(L,) L1 and 1 - generalised IoU of the matched boxes, per object."""
        predicted, matched = predictions.matched_boxes(), predictions.matched
        wanted = predictions.targets.boxes.to(predicted).expand_as(predicted)
        distance = (predicted - wanted).abs().sum(-1)
        overlap = generalised_box_iou(box_cxcywh_to_xyxy(predicted), box_cxcywh_to_xyxy(wanted))

        def per_object(values: Tensor) -> Tensor:
            # where, not a product: a padded slot may hold a NaN
            return torch.where(matched, values, 0.0).flatten(1).sum(-1) / predictions.num_boxes

        return {"loss_bbox": per_object(distance), "loss_giou": per_object(1 - overlap)}


@torch.no_grad()
def cardinality_error(predictions: SupervisedSet) -> Tensor:
    """(L,) mean absolute error of the number of queries that do not answer the last class; not a loss.

    With a softmax the last class is "no object". The sigmoid models of the literature log the same expression.
    """
    # `argmax(-1) != last` but for ties, and several times faster
    predicted = (predictions.logits.amax(-1) > predictions.logits[..., -1]).sum(-1)
    wanted = predictions.targets.valid.sum(-1)
    return (predicted - wanted).abs().to(predictions.boxes.dtype).mean(-1)
