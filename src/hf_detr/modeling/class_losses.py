"""Losses of the class logits of models with a sigmoid per class.

All classification losses are a weighted cross-entropy. Almost all logits belong to no object:
their target is 0 and their weight a power of the probability p, so one function serves all losses (`background`). What
is left to a row of `SIGMOID_LOSSES` is the target and the weight at the few logits that belong to an object. Gradients
pass through the weights as well.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .boxes import box_cxcywh_to_xyxy, box_iou
from .configuration import HfDetrConfig
from .supervision import MatchedGroup

Quality = Callable[[], Tensor]


def focal(probability: Tensor, quality: Quality, alpha: float) -> tuple[Tensor, Tensor]:
    """Lin et al. 2017, gamma 2: target 1, weight alpha (1 - p)^2."""
    return torch.ones_like(probability), alpha * (1 - probability) ** 2


def varifocal(probability: Tensor, quality: Quality, alpha: float) -> tuple[Tensor, Tensor]:
    """VarifocalNet (Zhang et al. 2021): target and weight q; like the background where q = 0.

    The paper's alpha, 0.75, is 1 - alpha here, as this alpha is the one of the focal loss.
    """
    target = quality()
    return target, torch.where(target > 0, target, (1 - alpha) * probability**2)


def matchability(probability: Tensor, quality: Quality, alpha: float) -> tuple[Tensor, Tensor]:
    """DEIM (Huang et al. 2025), gamma 1.5: target q^gamma, weight 1.

    Unlike varifocal loss it keeps teaching objects whose box hardly fits.
    """
    return quality() ** 1.5, torch.ones_like(probability)


class SigmoidLoss(NamedTuple):
    """A classification loss with a sigmoid per class.

    Attributes:
        at_objects: (p, what gives the IoU of the object's box or 0, alpha) → target and weight of its logit; all of
            them are (L, B, T). A loss that does not ask for overlaps does not pay for them.
        balanced: whether the weight of the background, p^gamma, is multiplied by 1 - alpha.
        gamma: its exponent.
    """

    at_objects: Callable[[Tensor, Quality, float], tuple[Tensor, Tensor]]
    balanced: bool
    gamma: float


SIGMOID_LOSSES = {
    "focal": SigmoidLoss(focal, balanced=True, gamma=2.0),
    "varifocal": SigmoidLoss(varifocal, balanced=True, gamma=2.0),
    "matchability": SigmoidLoss(matchability, balanced=False, gamma=1.5),
}


_CACHED_LOGITS = 2**17
"""Half a megabyte in float32. From 2^16 to 2^19 were about equally fast, 2^15 half as fast, 2^23 a quarter."""


def background(logits: Tensor, gamma: float) -> Tensor:
    """The loss p^gamma · -log(1 - p) of each logit whose target is 0."""
    return logits.sigmoid() ** gamma * F.softplus(logits)


def fast_softplus(logits: Tensor) -> Tensor:
    """log(1 + e^x) without `log1p`, which takes ten times as long as a `log`.

    The absolute error is about 1e-7 in float32, whatever the result. Far below 0 the result is smaller than that, and
    so its relative error is large. That does no harm here: there it is multiplied by a power of a probability that is
    as small as the result itself.
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


def qualities(group: MatchedGroup) -> Tensor:
    """(L, B, T) IoU of each object with the predicted box, without a gradient; 0 where not matched."""
    corners = box_cxcywh_to_xyxy(group.matched_boxes.detach()), box_cxcywh_to_xyxy(group.wanted_boxes)
    return box_iou(*corners)[0].where(group.matched, 0.0)


def matched_logits(group: MatchedGroup) -> Tensor:
    """(L, B, T) logit of each object's class at its query; meaningless where not matched."""
    _, _, num_queries, num_classes = group.predictions.logits.shape
    index = group.slots.clamp(max=num_queries - 1) * num_classes + group.targets.class_labels
    return group.predictions.logits.flatten(2).gather(2, index)


def sigmoid_loss(group: MatchedGroup, config: HfDetrConfig) -> Tensor:
    """(L,) weighted binary cross-entropy, summed over queries and classes, per object."""
    kind = SIGMOID_LOSSES[config.classification]
    scale = 1 - config.focal_alpha if kind.balanced else 1.0
    layers, supervised = len(group.predictions.logits), group.supervised
    if supervised is not None:
        supervised = supervised.repeat(layers, 1)
    elsewhere = BackgroundSum.apply(group.predictions.logits.flatten(0, 1), kind.gamma, supervised)

    logits = matched_logits(group)
    target, weight = kind.at_objects(logits.sigmoid(), lambda: qualities(group), config.focal_alpha)
    found = weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # where, not a product: a padded slot may hold a NaN
    at_objects = torch.where(group.matched, found - scale * background(logits, kind.gamma), 0.0)
    return (scale * elsewhere.view(layers, -1) + at_objects.sum(-1)).sum(-1) / group.num_boxes
