"""Frozen batch norms as part of the convolutions before them, while a model trains.

A frozen norm only scales and shifts, so a convolution with scaled weights does both at once: a pass over the maps less
in either direction, and nothing to keep for the norm's gradient. The weights themselves stay what they are, are scaled
anew in each step, and receive their gradient through the scale.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers.norm_act import FrozenBatchNorm2d, FrozenBatchNormAct2d
from torch import Tensor, nn

from hf_detr.acceleration.batch_norm_folding import feeding_convolutions, is_equal, small_picture
from hf_detr.modeling.backbone import Backbone


def fold_frozen_norms(model: nn.Module) -> Callable[[], None]:
    """Let the convolutions of a model's backbones do the work of the frozen norms after them.

    Where the maps would be others (an output of a convolution that someone else reads as well), nothing is changed.

    Returns:
        what undoes it.
    """
    folded: list[nn.Module] = []
    for backbone in model.modules():
        if isinstance(backbone, Backbone):
            folded += fold_frozen_norms_of(backbone.body, backbone.num_channels)
    return partial(unfold, folded)


@torch.no_grad()
def fold_frozen_norms_of(body: nn.Module, num_channels: int) -> list[nn.Module]:
    """Fold the frozen norms of one backbone; return the modules that compute otherwise now."""
    if not any(isinstance(module, FrozenBatchNorm2d | FrozenBatchNormAct2d) for module in body.modules()):
        return []
    was_training = body.training
    body.eval()
    picture = small_picture(body, num_channels)
    expected, folded = body(picture), []
    for norm, convolution in feeding_convolutions(body, picture).items():
        if isinstance(norm, FrozenBatchNorm2d | FrozenBatchNormAct2d) and type(convolution) is nn.Conv2d:
            convolution.forward = partial(convolve_and_norm, convolution, norm)
            norm.forward = partial(after_norm, norm)
            folded += [convolution, norm]
    if not is_equal(body(picture), expected):
        unfold(folded)
        folded = []
    body.train(was_training)
    return folded


def unfold(modules: list[nn.Module]) -> None:
    """Let the modules compute again as their classes say."""
    for module in modules:
        module.__dict__.pop("forward", None)


def convolve_and_norm(convolution: nn.Conv2d, norm: nn.Module, states: Tensor) -> Tensor:
    """(B, C, H, W) → the map behind a convolution and the frozen norm that follows it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return convolution._conv_forward(states, convolution.weight * scale[:, None, None, None], shift)


def after_norm(norm: nn.Module, states: Tensor) -> Tensor:
    """What timm's norms carry besides the norm: the activation that follows."""
    return norm.act(norm.drop(states)) if isinstance(norm, FrozenBatchNormAct2d) else states
