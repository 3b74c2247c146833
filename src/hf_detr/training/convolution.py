"""A convolution, the sum with another map and the ReLU in one pass over the maps, while a model trains on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hf_detr.deployment.dtypes import is_fast_with_bfloat16
from hf_detr.deployment.packing import has_packed_operators, sum_then


def convolve(
    layer: nn.Conv2d, maps: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, activation: str
) -> Tensor:
    """(B, C, H, W) maps and what to add to their convolution → (B, out_channels, H', W').

    Args:
        layer: says how weights are applied; its own are not read.
        maps: the input.
        weight, bias: those to apply.
        other: a map to add, before the activation.
        activation: "none" or "relu".
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else maps.dtype
    if maps.device.type != "cpu" or not suits_onednn(dtype):
        states = layer._conv_forward(maps, weight, bias)
        states = states if other is None else states + other
        return states.relu_() if activation == "relu" else states
    given = [None if tensor is None else tensor.to(dtype) for tensor in (maps, weight, bias, other)]
    geometry = layer.padding, layer.stride, layer.dilation, layer.groups
    return _Convolution.apply(*given, activation, geometry)


def suits_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes with a dtype at full speed here."""
    if not has_packed_operators() or torch.compiler.is_compiling():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and is_fast_with_bfloat16(torch.device("cpu")))


class _Convolution(torch.autograd.Function):
    """The operator that torch's compiler uses for frozen models, with a gradient."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        other: Tensor | None,
        activation: str,
        geometry: tuple[tuple[int, int], tuple[int, int], tuple[int, int], int],
    ) -> Tensor:
        operator = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            output = operator(maps, weight, bias, *geometry, activation, [], "")
        else:
            output = operator.binary(maps, other, weight, bias, *geometry, *sum_then(activation))
        ctx.geometry = geometry
        ctx.save_for_backward(maps, weight, output if activation == "relu" else None)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Any, ...]:
        maps, weight, activated = ctx.saved_tensors
        if activated is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, activated, 0)
        padding, stride, dilation, groups = ctx.geometry
        wanted = list(ctx.needs_input_grad)
        gradients = torch.ops.aten.convolution_backward(
            gradient, maps, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, wanted[:3]
        )
        return *gradients, gradient if wanted[3] else None, None, None
