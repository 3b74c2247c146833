"""Dropout whose random numbers do not take longer than the layer that it follows.

On a CPU PyTorch draws the mask number by number, by one thread: a seventh of a training step of Deformable DETR. One
64-bit number of its generator decides about four elements here.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

LEVELS = 2**16
"""Numbers that 16 bits can hold: the probability is rounded to a multiple of 1/65536."""
LEAST = 1 / LEVELS
"""The least probability that this tells from 0, and 1 minus it from 1."""


def dropout(states: Tensor, p: float, training: bool) -> Tensor:
    """Set elements to zero with probability `p`, in training, and divide the others by 1 - p.

    The mask comes from PyTorch's generator of the device: the same seed gives the same mask on the same device.

    Args:
        states: (…) of any floating point type.
        p: from 0 to 1; on a CPU, elements are dropped with a probability within 1/131072 of it.
        training: otherwise `states` are returned as they are.
    """
    by_bits = states.device.type == "cpu" and LEAST < p < 1 - LEAST and not torch.compiler.is_compiling()
    return _Dropout.apply(states, p) if training and by_bits else nn.functional.dropout(states, p, training)


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """(…) bool, false with probability `p`."""
    count = shape.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (numbers.view(torch.int16)[:count] >= round(p * LEVELS) - LEVELS // 2).view(shape)


class _Dropout(torch.autograd.Function):
    """Zero and scale what the mask says, forwards and backwards."""

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, p: float) -> Tensor:
        keep = keep_mask(states.shape, p)
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - p)
        return torch.where(keep, states, 0.0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradient, 0.0).mul_(ctx.scale), None


class Dropout(nn.Dropout):
    """`nn.Dropout` with the mask of `dropout`."""

    def forward(self, states: Tensor) -> Tensor:
        """(…) → (…)."""
        return dropout(states, self.p, self.training)
