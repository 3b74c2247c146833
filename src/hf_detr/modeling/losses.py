"""Supervised sets → named loss terms → their weighted sum, in float32 or float64.

A supervised set is one kind of prediction of all layers at once: the decoder's, the encoder's proposals, the
denoising queries'. Every term is computed for all its layers together.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .boxes import box_cxcywh_to_xyxy, generalised_box_iou
from .configuration import HfDetrConfig
from .matching import HungarianMatcher, Matches, Targets


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
        denoising: whether the queries were made from the objects: their number says nothing.
    """

    suffixes: list[str]
    logits: Tensor
    boxes: Tensor
    targets: Targets
    matches: Matches
    num_boxes: Tensor
    supervised: Tensor | None = None
    denoising: bool = False

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


class Criterion:
    """The losses of a model: `HungarianMatcher` and the terms that the config asks for."""

    def __init__(self, config: HfDetrConfig):
        self.matcher = HungarianMatcher(config)
        self.softmax = config.classification == "softmax"
        self.eos_coefficient, self.focal_alpha = config.eos_coefficient, config.focal_alpha
        self.weights = {
            "loss_ce": config.class_loss_coefficient,
            "loss_bbox": config.bbox_loss_coefficient,
            "loss_giou": config.giou_loss_coefficient,
        }

    def __call__(self, sets: list[SupervisedSet]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every term by name (unweighted; measures that are not part of the sum included)."""
        total, terms = sets[0].boxes.new_zeros(()), {}
        for supervised_set in sets:
            for name, values in self.terms(supervised_set).items():
                if name in self.weights:
                    total = total + self.weights[name] * values.sum()
                terms |= {name + suffix: value for suffix, value in zip(supervised_set.suffixes, values, strict=True)}
        return total, terms

    def terms(self, predictions: SupervisedSet) -> dict[str, Tensor]:
        """Each term as a vector over the layers of the set."""
        classify = self.cross_entropy if self.softmax else self.focal_loss
        terms = {"loss_ce": classify(predictions), **self.box_losses(predictions)}
        if not predictions.denoising:
            terms["cardinality_error"] = cardinality_error(predictions)
        return terms

    def cross_entropy(self, predictions: SupervisedSet) -> Tensor:
        """(L,) weighted mean over all queries of the batch, "no object" counting `eos_coefficient`."""
        logits = predictions.logits
        no_object = logits.shape[-1] - 1
        classes = torch.full((*logits.shape[:2], logits.shape[2] + 1), no_object, device=logits.device)
        labels = predictions.targets.class_labels.expand_as(predictions.slots)
        # objects without a query write into the extra slot, which is dropped
        classes = classes.scatter(2, predictions.slots, labels)[:, :, :-1]
        weights = logits.new_ones(logits.shape[-1])
        weights[no_object] = self.eos_coefficient
        losses = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), weights, reduction="none")
        return losses.unflatten(0, (len(logits), -1)).sum(-1) / weights[classes].flatten(1).sum(-1)

    def focal_loss(self, predictions: SupervisedSet) -> Tensor:
        """(L,) sigmoid focal loss (Lin et al. 2017, gamma 2), summed over queries and classes, per object."""
        logits = predictions.logits
        layers, batch, num_queries, num_classes = logits.shape
        one_hot = logits.new_zeros(layers, batch, (num_queries + 1) * num_classes)
        index = predictions.slots * num_classes + predictions.targets.class_labels
        one_hot = one_hot.scatter(2, index, 1.0).unflatten(2, (-1, num_classes))[:, :, :-1]
        probability = logits.sigmoid()
        wrong = torch.where(one_hot.bool(), 1 - probability, probability)
        balance = torch.where(one_hot.bool(), self.focal_alpha, 1 - self.focal_alpha)
        losses = balance * wrong**2 * F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        if predictions.supervised is not None:
            losses = losses * predictions.supervised[None, :, :, None]
        return losses.flatten(1).sum(-1) / predictions.num_boxes

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
    predicted = (predictions.logits.argmax(-1) != predictions.logits.shape[-1] - 1).sum(-1)
    wanted = predictions.targets.valid.sum(-1)
    return (predicted - wanted).abs().to(predictions.boxes.dtype).mean(-1)
