"""Attention spelled out, for those who ask for its weights; PyTorch's own functions do not return them.

Shapes: B batch, Q queries, S tokens, N heads, E width of a head.
"""

import torch
from torch import Tensor, nn


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Attention with the parameters that transformers gives to every attention function → (output, weights)."""
    weights = attention_weights(query, key, attention_mask, scaling).to(value.dtype)
    dropped = nn.functional.dropout(weights, dropout, module.training)
    return (dropped @ value).transpose(1, 2), weights


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """(B, N, Q, E) queries and (B, N, S, E) keys → (B, N, Q, S) weights in at least float32; mask as in `attend`."""
    scores = query @ key.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
