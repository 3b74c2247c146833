"""Computes linear layers that read the same tensor as one layer."""

from contextlib import ExitStack
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_detr.modeling.attention import DenseMemorySelfAttention, PlacedAttention, SelfAttention
from hf_detr.modeling.conditional_attention import ConditionalSelfAttention
from hf_detr.modeling.deformable_attention import (
    DeformableAttention,
    DeformableCrossAttention,
    DeformableSelfAttention,
)

from .passes import REMOVED, Undo, alter


class FusedProjections(PlacedAttention):
    """The part of an attention that computes queries and keys of (states + position) in one product."""

    fused: ClassVar = {"placed_proj": ("q_proj", "k_proj")}
    placed_proj: nn.Linear

    def project(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `SelfAttention`."""
        query, key = self.placed_proj(states + position).chunk(2, dim=-1)
        return query, key, self.v_proj(states)


class FusedSelfAttention(FusedProjections, SelfAttention):
    """Self-attention of decoder layers, with fused projections."""


class FusedDenseMemorySelfAttention(FusedProjections, DenseMemorySelfAttention):
    """Self-attention of dense encoder layers, with fused projections."""


class FusedConditionalSelfAttention(ConditionalSelfAttention):
    """Conditional self-attention with one product for all projections of the content, and one for the position."""

    fused: ClassVar = {
        "content_proj": ("q_content_proj", "k_content_proj", "v_proj"),
        "position_proj": ("q_position_proj", "k_position_proj"),
    }
    content_proj: nn.Linear
    position_proj: nn.Linear

    def project(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `ConditionalSelfAttention`."""
        query, key, value = self.content_proj(states).chunk(3, dim=-1)
        query_position, key_position = self.position_proj(position).chunk(2, dim=-1)
        return query + query_position, key + key_position, value


class FusedSampling(DeformableAttention):
    """The part of a deformable attention that computes offsets and weights in one product."""

    fused: ClassVar = {"sampling_proj": ("sampling_offsets", "attention_weights")}
    sampling_proj: nn.Linear

    def project(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """See `DeformableAttention`."""
        samples = self.num_heads * self.num_levels * self.num_points
        return self.sampling_proj(placed).split([2 * samples, samples], dim=-1)


class FusedDeformableSelfAttention(FusedSampling, DeformableSelfAttention):
    """Deformable self-attention of encoder layers, with fused offsets and weights."""


class FusedDeformableCrossAttention(FusedSampling, DeformableCrossAttention):
    """Deformable cross-attention of decoder layers, with fused offsets and weights."""


Fused = type[FusedProjections] | type[FusedConditionalSelfAttention] | type[FusedSampling]
FUSED: dict[type[nn.Module], Fused] = {
    SelfAttention: FusedSelfAttention,
    DenseMemorySelfAttention: FusedDenseMemorySelfAttention,
    ConditionalSelfAttention: FusedConditionalSelfAttention,
    DeformableSelfAttention: FusedDeformableSelfAttention,
    DeformableCrossAttention: FusedDeformableCrossAttention,
}


@torch.no_grad()
def fuse_projections(model: nn.Module) -> Undo:
    """Fuse the projections of a model's attentions where all of them are plain linear layers without adapters."""
    with ExitStack() as undos:
        for module in list(model.modules()):
            fused_class = FUSED.get(type(module))
            if fused_class is None:
                continue
            names = [name for parts in fused_class.fused.values() for name in parts]
            if all(type(getattr(module, name)) is nn.Linear for name in names):
                plan = fused_class.fused.items()
                joined = {fused: join([getattr(module, part) for part in parts]) for fused, parts in plan}
                undos.callback(alter(module, fused_class, **joined, **dict.fromkeys(names, REMOVED)))
        return undos.pop_all().close


def join(layers: list[nn.Linear]) -> nn.Linear:
    """Return one linear layer that gives the outputs of several linear layers side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joined
