"""Batch norms folded into the convolutions before them: one pass over the maps less for each."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers.utils import logging

logger = logging.get_logger(__name__)

_LARGEST_DEVIATION = 1e-3
"""Of the maps of a folded backbone, relative to their largest value. A wrong fold is off by far more."""


@torch.no_grad()
def fold_batch_norms(body: nn.Module, num_channels: int = 3) -> nn.Module:
    """A copy of a backbone in evaluation mode, its batch norms (frozen or not) folded where a convolution precedes.

    Which convolution feeds which batch norm is seen by running the backbone on a small picture, and the folded one is
    compared with it on the same picture. Where they differ (a convolution that computes its weights anew, an output
    that someone else reads as well), the backbone is returned unchanged, with a warning.

    Args:
        body: gives a list of maps for (B, num_channels, height, width).
        num_channels: of the pictures.
    """
    picture = small_picture(body, num_channels)
    folded = copy.deepcopy(body)
    names = {module: name for name, module in folded.named_modules()}
    for norm, convolution in feeding_convolutions(folded, picture).items():
        fold(convolution, norm)
        # timm's norms may carry the activation that follows them
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
        folded.set_submodule(names[norm], nn.Sequential(*rest) if rest else nn.Identity())
    if not is_equal(folded(picture), body(picture)):
        logger.warning("The batch norms of this backbone cannot be folded into its convolutions; they stay.")
        return body
    return folded


def small_picture(body: nn.Module, num_channels: int) -> Tensor:
    """Noise for a backbone to run on: a batch of 2 and several windows, as some refuse less."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num_channels, 128, 160, generator=generator).to(next(body.parameters()))


def is_equal(maps: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether two lists of maps are equal but for rounding."""
    return all(
        (found - wanted).abs().max() <= _LARGEST_DEVIATION * wanted.abs().max()
        for found, wanted in zip(maps, expected, strict=True)
    )


def feeding_convolutions(body: nn.Module, picture: Tensor) -> dict[nn.Module, nn.Conv2d]:
    """Which convolution's output each batch norm reads, of those that run once."""
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


def fold(convolution: nn.Conv2d, norm: nn.Module) -> None:
    """Change a convolution to what it is together with a batch norm, computed in float64."""
    bias = None if convolution.bias is None else convolution.bias.double()
    affine = [None if value is None else value.double() for value in (norm.weight, norm.bias)]
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.double(), bias, norm.running_mean.double(), norm.running_var.double(), norm.eps, *affine
    )
    dtype = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
