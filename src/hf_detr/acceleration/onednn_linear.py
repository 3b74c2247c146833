"""Lets oneDNN compute linear layers while a model trains on a CPU.

PyTorch gives products in float32 to MKL. On processors that are not Intel's, MKL reaches three quarters of the speed
of oneDNN. Convolutions go to oneDNN anyway.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .onednn_packing import has_packed_operators
from .passes import Undo, alter

LEAST_WORK = 2**24
"""Products of fewer multiplications than this are too small to gain from oneDNN."""


class OneDnnLinear(nn.Linear):
    """A linear layer computed by oneDNN where that is faster."""

    def forward(self, states: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        suits = (
            states.device.type == "cpu"
            and states.dtype == self.weight.dtype == torch.float32
            and states.shape[:-1].numel() * self.weight.numel() >= LEAST_WORK
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )
        return _Linear.apply(states, self.weight, self.bias) if suits else super().forward(states)


def use_onednn(model: nn.Module) -> Undo:
    """Let the linear layers of a model be computed by oneDNN where that is faster."""
    with ExitStack() as undos:
        for module in model.modules() if has_packed_operators() else ():
            if type(module) is nn.Linear:
                undos.callback(alter(module, OneDnnLinear))
        return undos.pop_all().close


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows (..., K) with weights (N, K), and add the bias (N,) if given; return (..., N)."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """A linear layer computed by oneDNN. MKL computes the gradient of the weights: it is as fast with that shape."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        for_states, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if for_states else None,
            rows.t() @ states.flatten(0, -2) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
