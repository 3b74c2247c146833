"""Multi-scale deformable attention of tokens and of queries on the memory.

Shapes: B batch, Q queries, S memory tokens, L levels, P points, N heads, D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention import Memory, QueryPosition
from .configuration import HfDetrConfig
from .deformable import deformable_attention


@dataclass(kw_only=True)
class DeformableMemory(Memory):
    """The memory of a deformable encoder.

    Attributes:
        valid_ratios: (B, L, 2) real share (x, y) of each level's width and height.
        grid: (B, S, 2) centre (x, y) of each token's cell, normalised by the real part of its level.
    """

    valid_ratios: Tensor
    grid: Tensor


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
        self, placed: Tensor, reference_points: Tensor, content: Tensor, memory: DeformableMemory
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

    def locate(self, reference_points: Tensor, offsets: Tensor, memory: DeformableMemory) -> Tensor:
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

    def forward(self, states: Tensor, position: Tensor, memory: DeformableMemory) -> tuple[Tensor, Tensor]:
        """(B, S, D) states and positions → (update, weights)."""
        return self.sample(states + position, memory.grid, states, memory)


class DeformableCrossAttention(DeformableAttention):
    """Deformable attention of the queries on the memory."""

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__(config, config.decoder_attention_heads, config.decoder_n_points)

    def forward(
        self, states: Tensor, position: QueryPosition, reference_points: Tensor, memory: DeformableMemory
    ) -> tuple[Tensor, Tensor]:
        """(B, Q, D) states → ((B, Q, D) update, (B, Q, N, L, P) weights)."""
        return self.sample(states + position.embedding, reference_points, memory.content, memory)
