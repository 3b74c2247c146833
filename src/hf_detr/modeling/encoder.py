"""Feature maps → Memory.

Shapes: B batch, S tokens of all levels, L levels, H and W rows and columns of a map, D width.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MLP, DenseMemorySelfAttention, Memory
from .backbone import FeatureMap
from .configuration import HfDetrConfig
from .deformable_attention import DeformableSelfAttention

MEMORY_SELF_ATTENTIONS = {"dense": DenseMemorySelfAttention, "deformable": DeformableSelfAttention}


class FeedForward(nn.Module):
    """Two linear layers, position by position."""

    def __init__(self, config: HfDetrConfig, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, hidden_dim)
        self.activation = ACT2FN[config.activation_function]
        self.dropout = nn.Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(hidden_dim, config.d_model)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return self.fc2(self.dropout(self.activation(self.fc1(states))))


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention among the tokens, dense or deformable, and a feed-forward network; norms follow the sums."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.self_attn = MEMORY_SELF_ATTENTIONS[config.encoder](config)
        self.self_attn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config, config.encoder_ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, states: Tensor, position: Tensor, memory: Memory, grid: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) states → ((B, S, D) states, attention weights or None)."""
        update, weights = self.self_attn(states, position, grid, memory)
        states = self.self_attn_norm(states + self.dropout(update))
        states = self.ffn_norm(states + self.dropout(self.ffn(states)))
        return states, weights


def flatten_levels(features: list[FeatureMap]) -> Memory:
    """The maps of all levels as one sequence of tokens, before any encoding."""
    content = torch.cat([feature.content.flatten(2).transpose(1, 2) for feature in features], dim=1)
    position = torch.cat([feature.position.flatten(1, 2) for feature in features], dim=1)
    masks = [feature.mask.flatten(1) for feature in features if feature.mask is not None]
    shapes = [(feature.content.shape[-2], feature.content.shape[-1]) for feature in features]
    ratios = torch.stack([valid_ratio(feature) for feature in features], dim=1)
    return Memory(content, position, torch.cat(masks, dim=1) if masks else None, shapes, ratios)


def valid_ratio(feature: FeatureMap) -> Tensor:
    """(B, 2) share (x, y) of the map's width and height that is real, in at least float32."""
    batch, _, height, width = feature.content.shape
    dtype = torch.promote_types(feature.content.dtype, torch.float32)
    if feature.mask is None:
        return torch.ones(batch, 2, dtype=dtype, device=feature.content.device)
    real_width, real_height = feature.mask[:, 0].sum(-1), feature.mask[:, :, 0].sum(-1)
    return torch.stack([real_width.to(dtype) / width, real_height.to(dtype) / height], dim=-1)


def token_grid(memory: Memory) -> Tensor:
    """(B, S, 2) centre (x, y) of each token's cell, normalised by the real part of its level."""
    dtype, device = memory.valid_ratios.dtype, memory.valid_ratios.device
    centres = []
    for level, (height, width) in enumerate(memory.spatial_shapes):
        rows = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        columns = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        cells = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], dim=-1)
        centres.append(cells.flatten(0, 1) / memory.valid_ratios[:, None, level])
    return torch.cat(centres, dim=1)


class Encoder(nn.Module):
    """A stack of encoder layers over the flattened maps.

    Deformable encoders tell the levels apart by a learned embedding (and place each token by its own cell); the dense
    one of DAB-DETR scales the positions by a function of the content.
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.position_scale = None
        if config.encoder_position_scale:
            self.position_scale = MLP(config.d_model, config.d_model, config.d_model, 2)
        self.level_embedding = None
        if config.encoder == "deformable":
            self.level_embedding = nn.Parameter(torch.zeros(config.num_feature_levels, config.d_model))

    def initialise(self) -> None:
        """The level embedding is drawn from N(0, 1)."""
        if self.level_embedding is not None:
            init.normal_(self.level_embedding)

    def place(self, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) positions of the tokens, and (B, S, 2) the centres of their cells where the layers need them.

        Where levels have embeddings, that of each token's level is added to its position.
        """
        if self.level_embedding is None:
            return memory.position, None
        sizes = [height * width for height, width in memory.spatial_shapes]
        levels = [row.expand(size, -1) for row, size in zip(self.level_embedding, sizes, strict=True)]
        return memory.position + torch.cat(levels), token_grid(memory)

    def forward(
        self, features: list[FeatureMap], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> Memory:
        """Encode the maps of all levels; `output_…` keep what each layer saw."""
        memory = flatten_levels(features)
        memory.position, grid = self.place(memory)
        states, hidden_states, attentions = memory.content, [memory.content], []
        for layer in self.layers:
            position = memory.position
            if self.position_scale is not None:
                position = position * self.position_scale(states)
            states, weights = layer(states, position, memory, grid)
            hidden_states.append(states)
            attentions.append(weights)
        memory.content = states
        memory.hidden_states = tuple(hidden_states) if output_hidden_states else None
        memory.attentions = tuple(attentions) if output_attentions else None
        return memory
