"""Dropout that draws its random numbers faster than PyTorch does, while a model trains on a CPU.

PyTorch draws one number for each element of the mask, in one thread. This takes a seventh of a training step of
Deformable DETR. Here one 64-bit number of PyTorch's generator decides about four elements.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from hf_detr.modeling.attention import DenseAttention
from hf_detr.modeling.eager_attention import attention_weights

from .passes import Undo, alter

LEVELS = 2**16
"""The count of numbers that 16 bits can hold. The probability is rounded to a multiple of 1/65536."""
LEAST = 1 / LEVELS
"""Probabilities that are no further than this from 0 or 1 are left to the dropout of PyTorch."""


def fast_dropout(states: Tensor, p: float, training: bool) -> Tensor:
    """Set elements to zero with probability `p`, in training, and divide the others by 1 - p.

    The mask comes from PyTorch's generator of the device: the same seed gives the same mask on the same device.

    Args:
        states: (…) of any floating point type.
        p: the probability, from 0 to 1. On a CPU, elements are dropped with a probability within 1/131072 of it.
        training: whether the model trains; if not, `states` are returned as they are.
    """
    by_bits = states.device.type == "cpu" and LEAST < p < 1 - LEAST and not torch.compiler.is_compiling()
    return _Dropout.apply(states, p) if training and by_bits else nn.functional.dropout(states, p, training)


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """Return a mask (…) bool whose elements are false with probability `p`."""
    count = shape.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (numbers.view(torch.int16)[:count] >= round(p * LEVELS) - LEVELS // 2).view(shape)


class _Dropout(torch.autograd.Function):
    """Zero and scale what the mask says, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, p: float) -> Tensor:
        keep = keep_mask(states.shape, p)
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - p)
        return torch.where(keep, states, 0.0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradient, 0.0).mul_(ctx.scale), None


class FastDropout(nn.Dropout):
    """`nn.Dropout` with the mask of `fast_dropout`."""

    def forward(self, states: Tensor) -> Tensor:
        """(…) → (…)."""
        return fast_dropout(states, self.p, self.training)


def attention_with_fast_dropout(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`eager_attention` with the mask of `fast_dropout`; arguments and results are the same."""
    weights = attention_weights(query, key, attention_mask, scaling).to(value.dtype)
    dropped = fast_dropout(weights, dropout, module.training)
    return (dropped @ value).transpose(1, 2), weights


class FastDropoutAttention(DenseAttention):
    """The part of a dense attention that drops its weights, mixed into the class of the attention."""

    def attention_function(self) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """The attention of this file, in training on a CPU. Otherwise the attention that is configured."""
        ours = self.config._attn_implementation in ("eager", "sdpa") and next(self.parameters()).device.type == "cpu"
        if ours and self.training and self.dropout:
            return attention_with_fast_dropout
        return super().attention_function()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self).__bases__[1],), self.__dict__


_FAST_CLASSES: dict[type[DenseAttention], type[DenseAttention]] = {}


def with_fast_dropout(attention: type[DenseAttention]) -> type[DenseAttention]:
    """Return a class of dense attention with `FastDropoutAttention` mixed in."""
    if attention not in _FAST_CLASSES:
        bases = (FastDropoutAttention, attention)
        _FAST_CLASSES[attention] = type(f"FastDropout{attention.__name__}", bases, {"__module__": __name__})
    return _FAST_CLASSES[attention]


def _unpickled(attention: type[DenseAttention]) -> DenseAttention:
    """An instance of a class that only exists in memory, before its state is put in."""
    fast = with_fast_dropout(attention)
    return fast.__new__(fast)


def use_fast_dropout(model: nn.Module) -> Undo:
    """Let the dropouts of a model and of its attention weights draw their masks faster."""
    with ExitStack() as undos:
        for module in model.modules():
            if type(module) is nn.Dropout:
                undos.callback(alter(module, FastDropout))
            elif isinstance(module, DenseAttention):
                undos.callback(alter(module, with_fast_dropout(type(module))))
        return undos.pop_all().close
