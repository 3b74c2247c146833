"""Supervised sets → named loss terms → their weighted sum, in float32 or float64.

A supervised set is one kind of prediction of all layers at once: the decoder's, the encoder's proposals, the
denoising queries'. Every term is computed for all its layers together.

With a sigmoid per class all classification losses are a weighted cross-entropy. Almost all logits belong to no object:
their target is 0 and their weight a power of the probability p, so one function serves all losses (`background`). What
is left to a row of `SIGMOID_LOSSES` is the target and the weight at the few logits that belong to an object. Gradients
are those of the equations, weights included.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .boxes import box_cxcywh_to_xyxy, box_iou, generalised_box_iou
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


def focal(probability: Tensor, quality: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Lin et al. 2017, gamma 2: target 1, weight alpha (1 - p)^2."""
    return torch.ones_like(probability), alpha * (1 - probability) ** 2


def varifocal(probability: Tensor, quality: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """VarifocalNet (Zhang et al. 2021): target and weight q; like the background where q = 0.

    The paper's alpha, 0.75, is the complement of that of the focal loss.
    """
    return quality, torch.where(quality > 0, quality, (1 - alpha) * probability**2)


def matchability(probability: Tensor, quality: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """DEIM (Huang et al. 2025), gamma 1.5: target q^gamma, weight 1.

    Unlike varifocal loss it keeps teaching objects whose box hardly fits.
    """
    return quality**1.5, torch.ones_like(probability)


def position_supervised(probability: Tensor, quality: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Stable-DINO (Liu et al. 2023), gamma 2: target t = q^2, weight alpha (t - p)^2.

    As in the authors' repository, IDEA-Research/Stable-DINO, t is scaled to reach 1 in each image.
    """
    squared = quality**2
    peak = F.pad(squared, (0, 1)).amax(-1, keepdim=True).clamp(min=torch.finfo(squared.dtype).tiny)
    target = squared / peak
    return target, alpha * (target - probability) ** 2


class SigmoidLoss(NamedTuple):
    """A classification loss with a sigmoid per class.

    Attributes:
        at_objects: (p, IoU of the object's box or 0, alpha), each (L, B, T) → target and weight of its logit.
        balanced: whether the weight of the background, p^gamma, is multiplied by 1 - alpha.
        gamma: its exponent.
        uses_quality: whether the IoU is asked for.
    """

    at_objects: Callable[[Tensor, Tensor | None, float], tuple[Tensor, Tensor]]
    balanced: bool
    gamma: float
    uses_quality: bool = True


SIGMOID_LOSSES = {
    "focal": SigmoidLoss(focal, balanced=True, gamma=2.0, uses_quality=False),
    "varifocal": SigmoidLoss(varifocal, balanced=True, gamma=2.0),
    "matchability": SigmoidLoss(matchability, balanced=False, gamma=1.5),
    "position_supervised": SigmoidLoss(position_supervised, balanced=True, gamma=2.0),
}


_CACHED_LOGITS = 2**17
"""Half a megabyte in float32. From 2^16 to 2^19 were about equally fast, 2^15 half as fast, 2^23 a quarter."""


def background(logits: Tensor, gamma: float) -> Tensor:
    """The loss p^gamma · -log(1 - p) of each logit whose target is 0."""
    return logits.sigmoid() ** gamma * F.softplus(logits)


def fast_softplus(logits: Tensor) -> Tensor:
    """log(1 + e^x) to the rounding of 1, not of the result, without `log1p`, which takes ten times as long as a `log`.

    Far below 0 it is weighted by a power of a probability as small as itself.
    """
    return logits.relu().sub_(logits.abs().sigmoid_().log_())


class BackgroundSum(torch.autograd.Function):
    """The sum of `background` over all the logits of each image.

    Its gradient is computed along, in fewer passes over memory, and on a CPU a few images at a time: there are
    millions of logits, and what is computed from them should fit into its cache.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gamma: float, supervised: Tensor | None) -> Tensor:
        """(N, Q, K) logits of N images, (N, Q) queries that count or None → (N,) sums."""
        slopes, sums = torch.empty_like(logits), logits.new_empty(len(logits))
        at_once = max(1, _CACHED_LOGITS // max(1, logits[0].numel())) if logits.device.type == "cpu" else len(logits)
        for first in range(0, len(logits), at_once):
            images = slice(first, first + at_once)
            probability, cross_entropy = logits[images].sigmoid(), fast_softplus(logits[images])
            # of an exponent 2 or 1.5, faster than a power of any other
            weight = probability * (probability if gamma == 2 else probability ** (gamma - 1))
            if supervised is not None:
                weight *= supervised[images, :, None]
            # d/dx p^g s = p^g (g (1 - p) s + p), where s = -log(1 - p) and ds/dx = p
            slope = torch.addcmul(probability, 1 - probability, cross_entropy, value=gamma)
            torch.mul(slope, weight, out=slopes[images])
            sums[images] = cross_entropy.mul_(weight).flatten(1).sum(-1)
        ctx.save_for_backward(slopes)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the logits."""
        (slopes,) = ctx.saved_tensors
        return gradient[:, None, None] * slopes, None, None


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
