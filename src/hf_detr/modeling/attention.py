"""The ways to look: dense self- and cross-attention, conditional attention, multi-scale deformable attention.

Shapes: B batch, Q queries, S memory tokens, L levels, P points, N heads, D width, E width of a head.
Every cross-attention has the same call: (states, position, reference_points, memory).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration import HfDetrConfig
from .deformable import deformable_attention
from .dropout import dropout as drop
from .position import sine_reference_embedding


@dataclass
class Memory:
    """What the encoder gives to the queries: the tokens of all levels, finest level first.

    Attributes:
        content: (B, S, D).
        position: (B, S, D) position embedding of the tokens.
        mask: (B, S), True on real tokens; None where nothing is padded.
        spatial_shapes: (height, width) of each level.
        valid_ratios: (B, L, 2) real share (x, y) of each level's width and height.
        hidden_states: the input of the first encoder layer and the output of each, when asked for.
        attentions: (B, N, S, S) weights of each encoder layer, when asked for.
    """

    content: Tensor
    position: Tensor
    mask: Tensor | None
    spatial_shapes: list[tuple[int, int]]
    valid_ratios: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class QueryPosition:
    """Where the queries of one decoder layer stand.

    Attributes:
        embedding: (B, Q, D), added to or projected with the content.
        spatial: (B, Q, D) sine embedding that conditional attention compares with memory positions, else None.
    """

    embedding: Tensor
    spatial: Tensor | None = None


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        dims = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))

    def forward(self, states: Tensor) -> Tensor:
        """(..., input_dim) → (..., output_dim)."""
        for layer in self.layers[:-1]:
            states = layer(states).relu()
        return self.layers[-1](states)


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
    """Attention spelled out, for its weights; the interface is that of transformers' attention functions."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    dropped = drop(weights, dropout, module.training)
    return (dropped @ value).transpose(1, 2), weights


class DenseAttention(nn.Module):
    """Scaled dot-product attention over already projected queries, keys and values, and the output projection."""

    is_causal = False

    def __init__(self, config: HfDetrConfig, num_heads: int):
        super().__init__()
        self.config = config  # the implementation can be switched on a live model, so it is looked up at each call
        self.num_heads = num_heads
        self.dropout = config.attention_dropout
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def split_heads(self, states: Tensor) -> Tensor:
        """(B, Q, N·E) → (B, N, Q, E)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attention of (B, N, Q, E) on (B, N, S, E).

        Args:
            mask: (B or 1, 1, Q or 1, S), True where a query may attend, or None.

        Returns:
            ((B, Q, D) update, (B, N, Q, S) weights or None).
        """
        name = self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        dropout = self.dropout if self.training else 0.0
        if dropout and name == "sdpa" and query.device.type == "cpu":
            attention = eager_attention  # PyTorch's does the same, with a slower dropout
        states, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask=mask,
            dropout=dropout,
            scaling=query.shape[-1] ** -0.5,
        )
        return self.out_proj(states.flatten(2)), weights


def key_mask(mask: Tensor | None) -> Tensor | None:
    """(B, S) mask of tokens → (B, 1, 1, S) mask for attention."""
    return None if mask is None else mask[:, None, None, :]


class SelfAttention(DenseAttention):
    """Attention among tokens or queries; positions are added to queries and keys, not to values."""

    def __init__(self, config: HfDetrConfig, num_heads: int):
        super().__init__(config, num_heads)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)

    def project(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, D) states and positions → queries, keys and values."""
        placed = states + position
        return self.q_proj(placed), self.k_proj(placed), self.v_proj(states)

    def forward(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states and positions, mask as in `attend` → ((B, Q, D) update, weights or None)."""
        return self.attend(*map(self.split_heads, self.project(states, position)), mask)


class ConditionalSelfAttention(DenseAttention):
    """Self-attention of Conditional DETR: content and position have projections of their own."""

    def __init__(self, config: HfDetrConfig, num_heads: int):
        super().__init__(config, num_heads)
        self.q_content_proj = nn.Linear(config.d_model, config.d_model)
        self.q_position_proj = nn.Linear(config.d_model, config.d_model)
        self.k_content_proj = nn.Linear(config.d_model, config.d_model)
        self.k_position_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)

    def project(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, D) states and positions → queries, keys and values."""
        query = self.q_content_proj(states) + self.q_position_proj(position)
        key = self.k_content_proj(states) + self.k_position_proj(position)
        return query, key, self.v_proj(states)

    def forward(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states and positions, mask as in `attend` → ((B, Q, D) update, weights or None)."""
        return self.attend(*map(self.split_heads, self.project(states, position)), mask)


class CrossAttention(DenseAttention):
    """Attention of the queries on the memory; positions are added to queries and keys, not to values."""

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__(config, config.decoder_attention_heads)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)

    def forward(
        self, states: Tensor, position: QueryPosition, reference_points: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states → ((B, Q, D) update, (B, N, Q, S) weights or None). The references are not used."""
        query = self.q_proj(states + position.embedding)
        key, value = self.k_proj(memory.content + memory.position), self.v_proj(memory.content)
        return self.attend(*map(self.split_heads, (query, key, value)), key_mask(memory.mask))


class ConditionalCrossAttention(DenseAttention):
    """Cross-attention of Conditional DETR (Meng et al. 2021).

    Each head compares content with content and the spatial query with the memory's positions, side by side: the two
    halves are concatenated, not added. Only the first layer also adds the query position, as its content is empty.
    """

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__(config, config.decoder_attention_heads)
        self.q_content_proj = nn.Linear(config.d_model, config.d_model)
        self.q_position_proj = nn.Linear(config.d_model, config.d_model) if layer_index == 0 else None
        self.q_spatial_proj = nn.Linear(config.d_model, config.d_model)
        self.k_content_proj = nn.Linear(config.d_model, config.d_model)
        self.k_position_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)

    def forward(
        self, states: Tensor, position: QueryPosition, reference_points: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states → ((B, Q, D) update, (B, N, Q, S) weights or None)."""
        query, key = self.q_content_proj(states), self.k_content_proj(memory.content)
        key_position = self.k_position_proj(memory.position)
        if self.q_position_proj is not None:
            query, key = query + self.q_position_proj(position.embedding), key + key_position
        spatial = self.q_spatial_proj(position.spatial)
        query = torch.cat([self.split_heads(query), self.split_heads(spatial)], dim=-1)
        key = torch.cat([self.split_heads(key), self.split_heads(key_position)], dim=-1)
        value = self.split_heads(self.v_proj(memory.content))
        return self.attend(query, key, value, key_mask(memory.mask))


class SpatialQuery(nn.Module):
    """The sine embedding of a reference's centre that conditional attention compares with memory positions.

    From the second layer on it is scaled by a function of the content; box references also modulate its two halves by
    the ratio of an expected size, read from the content, to the size of the box (DAB-DETR, Liu et al. 2022).
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.width = config.d_model // 2
        self.scale = MLP(config.d_model, config.d_model, config.d_model, 2)
        self.size = MLP(config.d_model, config.d_model, 2, 2) if config.query_reference == "box" else None

    def forward(self, layer_index: int, states: Tensor, reference_points: Tensor) -> Tensor:
        """(B, Q, D) states and (B, Q, 2 or 4) references → (B, Q, D), the half of y first."""
        spatial = sine_reference_embedding(reference_points[..., :2], self.width).to(states.dtype)
        if layer_index > 0:
            spatial = spatial * self.scale(states)
        if self.size is None:
            return spatial
        width, height = (self.size(states).sigmoid() / reference_points[..., 2:]).to(states.dtype).split(1, dim=-1)
        vertical, horizontal = spatial.split(self.width, dim=-1)
        return torch.cat([vertical * height, horizontal * width], dim=-1)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021): a few sampled points per head and level."""

    def __init__(self, config: HfDetrConfig, num_heads: int, num_points: int):
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, config.num_feature_levels, num_points
        samples = num_heads * self.num_levels * num_points
        self.sampling_offsets = nn.Linear(config.d_model, samples * 2)
        self.attention_weights = nn.Linear(config.d_model, samples)
        self.value_proj = nn.Linear(config.d_model, config.d_model)
        self.output_proj = nn.Linear(config.d_model, config.d_model)

    def initialise(self) -> None:
        """Heads look in directions around the clock, point p at distance p + 1; all points count alike."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * distances[None, None, :, None]
        offsets = offsets.expand(-1, self.num_levels, -1, -1).flatten()
        init.zeros_(self.sampling_offsets.weight)
        init.copy_(self.sampling_offsets.bias, offsets.to(self.sampling_offsets.bias))
        init.zeros_(self.attention_weights.weight)
        init.zeros_(self.attention_weights.bias)

    def sample(
        self, placed: Tensor, reference_points: Tensor, content: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """Sample token contents around each query's reference.

        Args:
            placed: (B, Q, D) content plus position of the queries.
            reference_points: (B, Q, 2) points or (B, Q, 4) boxes, normalised by the real part of the image.
            content: (B, S, D) of the tokens.
            memory: layout and mask of the tokens.

        Returns:
            ((B, Q, D) update, (B, Q, N, L, P) attention weights).
        """
        value = self.value_proj(content)
        if memory.mask is not None:
            value = value.masked_fill(~memory.mask[..., None], 0.0)
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets, weights = self.project(placed)
        offsets = offsets.unflatten(-1, (*shape, 2))
        weights = weights.unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1, dtype=torch.promote_types(weights.dtype, torch.float32)).unflatten(-1, shape[1:])
        locations = self.locate(reference_points, offsets, memory)
        value = value.unflatten(-1, (self.num_heads, -1))
        return self.output_proj(deformable_attention(value, memory.spatial_shapes, locations, weights)), weights

    def project(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, D) → offsets (B, Q, N·L·P·2) and logits of the weights (B, Q, N·L·P)."""
        return self.sampling_offsets(placed), self.attention_weights(placed)

    def locate(self, reference_points: Tensor, offsets: Tensor, memory: Memory) -> Tensor:
        """(B, Q, N, L, P, 2) sampling locations: offsets count cells of the map, or shares of a reference box."""
        scale = memory.valid_ratios[:, None, :, None]
        centre = self.by_sample(reference_points[:, :, None, None, :2] * scale)
        flat = offsets.flatten(-3).to(centre.dtype)
        if reference_points.shape[-1] == 2:
            cells = centre.new_tensor([[1 / width, 1 / height] for height, width in memory.spatial_shapes])
            locations = torch.addcmul(centre, flat, self.by_sample(cells[None, None, :, None]))
        else:
            size = self.by_sample(reference_points[:, :, None, None, 2:] * scale)
            locations = torch.addcmul(centre, flat, size, value=0.5 / self.num_points)
        return locations.view_as(offsets)

    def by_sample(self, pairs: Tensor) -> Tensor:
        """(B, Q, L, 1, 2) → (B, Q, 1, L·P·2): rows of all samples of a head, long enough for vector instructions."""
        return pairs.expand(-1, -1, -1, self.num_points, -1).flatten(-3)[:, :, None]


class DeformableSelfAttention(DeformableAttention):
    """Deformable attention among the tokens of the memory, each looking around its own cell."""

    def __init__(self, config: HfDetrConfig):
        super().__init__(config, config.encoder_attention_heads, config.encoder_n_points)

    def forward(self, states: Tensor, position: Tensor, grid: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """(B, S, D) states and positions, (B, S, 2) centres of the cells → (update, weights)."""
        return self.sample(states + position, grid, states, memory)


class DenseMemorySelfAttention(SelfAttention):
    """Dense attention among the tokens of the memory."""

    def __init__(self, config: HfDetrConfig):
        super().__init__(config, config.encoder_attention_heads)

    def forward(self, states: Tensor, position: Tensor, grid: None, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) states and positions → (update, weights or None). The grid is not used."""
        return super().forward(states, position, key_mask(memory.mask))


class DeformableCrossAttention(DeformableAttention):
    """Deformable attention of the queries on the memory."""

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__(config, config.decoder_attention_heads, config.decoder_n_points)

    def forward(
        self, states: Tensor, position: QueryPosition, reference_points: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """(B, Q, D) states → ((B, Q, D) update, (B, Q, N, L, P) weights)."""
        return self.sample(states + position.embedding, reference_points, memory.content, memory)


MEMORY_SELF_ATTENTIONS = {"dense": DenseMemorySelfAttention, "deformable": DeformableSelfAttention}
CROSS_ATTENTIONS = {
    "dense": CrossAttention,
    "conditional": ConditionalCrossAttention,
    "deformable": DeformableCrossAttention,
}
