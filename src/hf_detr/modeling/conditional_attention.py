"""The attention of Conditional DETR (Meng et al. 2021), in which content and position have projections of their own.

Shapes: B batch, Q queries, S memory tokens, N heads, D width.
"""

import torch
from torch import Tensor, nn

from .attention import MLP, DenseAttention, Memory, QueryPosition, key_mask
from .configuration import HfDetrConfig
from .reference_position import sine_reference_embedding


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
        query, key, value = map(self.split_heads, self.project(states, position))
        return self.attend(query, key, value, mask)


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
