"""Folds batch norms into the convolutions before them. Every fold saves one pass over the maps."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers.utils import logging

from hf_detr.modeling.backbone import Backbone

from .passes import REMOVED, Undo, alter

logger = logging.get_logger(__name__)

_LARGEST_DEVIATION = 1e-3
"""The largest difference between the maps of a backbone and its folded form, as a share of the largest value. Rounding
stays far below it; a wrong fold is far above it."""
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class FoldedBatchNorm(nn.Module):
    """A batch norm whose work is done by the convolution before it. timm's norms also carry a dropout and an
    activation, which this layer still computes."""

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        for name in ("drop", "act"):
            part = getattr(self, name, None)
            states = states if part is None else part(states)
        return states


def fold_batch_norms(model: nn.Module) -> Undo:
    """Fold the batch norms, frozen or not, of a model's backbones into the convolutions before them.

    The model has to be in evaluation mode. A backbone whose maps would change stays as it is, with a warning.
    """
    with ExitStack() as undos:
        for backbone in list(model.modules()):
            if isinstance(backbone, Backbone):
                undos.callback(fold_batch_norms_of(backbone.body, backbone.num_channels))
        return undos.pop_all().close


@torch.no_grad()
def fold_batch_norms_of(body: nn.Module, num_channels: int = 3) -> Undo:
    """Fold the batch norms of one backbone in evaluation mode.

    Running the backbone on a small picture shows which convolution feeds which batch norm, and the folded backbone is
    compared with the original on the same picture. They differ where a convolution computes its weights anew, or where
    something else reads its output too.

    Args:
        body: gives a list of maps for (B, num_channels, height, width).
        num_channels: the channels of the pictures.
    """
    picture = small_picture(body, num_channels)
    expected = body(picture)
    with ExitStack() as undos:
        for norm, convolution in feeding_convolutions(body, picture).items():
            weight, bias = folded_weights(convolution, norm)
            undos.callback(alter(convolution, weight=weight, bias=bias))
            undos.callback(alter(norm, FoldedBatchNorm, **{n: REMOVED for n in _TENSORS if hasattr(norm, n)}))
        if not is_equal(body(picture), expected):
            logger.warning("The batch norms of this backbone cannot be folded into its convolutions; they stay.")
            undos.close()
        return undos.pop_all().close


def small_picture(body: nn.Module, num_channels: int) -> Tensor:
    """Return noise for a backbone to run on: a batch of 2 and several windows, because some backbones refuse less."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num_channels, 128, 160, generator=generator).to(next(body.parameters()))


def is_equal(maps: list[Tensor], expected: list[Tensor]) -> bool:
    """Return whether two lists of maps are equal but for rounding."""
    return all(
        (found - wanted).abs().max() <= _LARGEST_DEVIATION * wanted.abs().max()
        for found, wanted in zip(maps, expected, strict=True)
    )


def feeding_convolutions(body: nn.Module, picture: Tensor) -> dict[nn.Module, nn.Conv2d]:
    """Return each batch norm with the convolution whose output it reads, where both run once."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holding the tensors keeps their ids unique
    pairs: list[tuple[nn.Module, nn.Conv2d]] = []
    calls: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        outputs[id(output)] = module, output
        calls[module] = calls.get(module, 0) + 1

    def before_norm(module: nn.Module, inputs: tuple[Tensor]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if id(inputs[0]) in outputs:
            pairs.append((module, outputs[id(inputs[0])][0]))

    handles = []
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_convolution))
        elif getattr(module, "running_var", None) is not None:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        body(picture)
    finally:
        for handle in handles:
            handle.remove()
    return {norm: convolution for norm, convolution in pairs if calls[norm] == calls[convolution] == 1}


def folded_weights(convolution: nn.Conv2d, norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the weight and the bias of a convolution that also does the work of a batch norm, computed in float64."""
    own_bias = None if convolution.bias is None else convolution.bias.double()
    mean, variance = (getattr(norm, name).double() for name in ("running_mean", "running_var"))
    affine = (getattr(norm, name) for name in ("weight", "bias"))
    scale, shift = (None if value is None else value.double() for value in affine)
    eps: float = norm.__dict__["eps"]
    folded = fuse_conv_bn_weights(convolution.weight.double(), own_bias, mean, variance, eps, scale, shift)
    weight, bias = (nn.Parameter(value.to(convolution.weight.dtype), requires_grad=False) for value in folded)
    return weight, bias
