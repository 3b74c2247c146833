"""Losses of the class logits.

With a sigmoid per class all classification losses are a weighted cross-entropy. Almost all logits belong to no object:
their target is 0 and their weight a power of the probability p, so one function serves all losses (`background`). What
is left to a row of `SIGMOID_LOSSES` is the target and the weight at the few logits that belong to an object. Gradients
are those of the equations, weights included.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
