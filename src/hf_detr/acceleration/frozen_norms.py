"""Makes frozen batch norms part of the convolutions before them, while a model trains.

A frozen norm only scales and shifts, so a convolution with scaled weights does its work as well. This saves a pass
over the maps in either direction, and nothing has to be kept for the norm's gradient. The weights themselves stay what
they are. They are scaled anew in each step and receive their gradient through the scale.
"""

from contextlib import ExitStack
from typing import Protocol

import torch
from timm.layers.norm_act import FrozenBatchNorm2d, FrozenBatchNormAct2d
from torch import Tensor, nn

from hf_detr.modeling.backbone import Backbone

from .batch_norm_folding import feeding_convolutions, is_equal, small_picture
from .passes import Undo, alter


class FrozenNorm(Protocol):
    """What is read of a frozen batch norm of timm."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float


class NormedConv2d(nn.Conv2d):
    """A convolution that also does the work of the frozen norm after it.

    Attributes:
        norms: the norm.
    """

    norms: tuple[FrozenNorm]

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, H, W) → the map behind the norm."""
        (norm,) = self.norms
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(states, self.weight * scale[:, None, None, None], shift)


class FoldedNorm(FrozenBatchNorm2d):
    """A frozen norm whose work is done by the convolution before it."""

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        return states


class FoldedNormAct(FrozenBatchNormAct2d):
    """A frozen norm whose work is done by the convolution before it; the activation that it carries is left."""

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return self.act(self.drop(states))


FOLDED = {FrozenBatchNorm2d: FoldedNorm, FrozenBatchNormAct2d: FoldedNormAct}


def fold_frozen_norms(model: nn.Module) -> Undo:
    """Let the convolutions of a model's backbones do the work of the frozen norms after them.

    A backbone whose maps would change (where something else reads the output of a convolution too) stays as it is.
    """
    with ExitStack() as undos:
        for backbone in list(model.modules()):
            if isinstance(backbone, Backbone):
                undos.callback(fold_frozen_norms_of(backbone.body, backbone.num_channels))
        return undos.pop_all().close


@torch.no_grad()
def fold_frozen_norms_of(body: nn.Module, num_channels: int) -> Undo:
    """Fold the frozen norms of one backbone, which gives a list of maps for (B, num_channels, height, width)."""
    with ExitStack() as undos:
        if not any(type(module) in FOLDED for module in body.modules()):
            return undos.pop_all().close
        was_training = body.training
        body.eval()
        picture = small_picture(body, num_channels)
        expected = body(picture)
        for norm, convolution in feeding_convolutions(body, picture).items():
            if type(norm) in FOLDED and type(convolution) is nn.Conv2d:
                undos.callback(alter(convolution, NormedConv2d, norms=(norm,)))
                undos.callback(alter(norm, FOLDED[type(norm)]))
        if not is_equal(body(picture), expected):
            undos.close()
        body.train(was_training)
        return undos.pop_all().close
