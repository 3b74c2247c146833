"""Feature maps → Memory.

Shapes: B batch, S tokens of all levels, L levels, H and W rows and columns of a map, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MLP, DenseMemorySelfAttention, Memory
from .backbone import FeatureMap
from .configuration import HfDetrConfig


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
    """Self-attention among the tokens and a feed-forward network; norms follow the sums."""

    def __init__(self, config: HfDetrConfig, self_attention: Callable[[HfDetrConfig], nn.Module]):
        super().__init__()
        self.self_attn = self_attention(config)
        self.self_attn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config, config.encoder_ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, position: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) states → ((B, S, D) states, attention weights or None)."""
        update, weights = self.self_attn(states, position, memory)
        states = self.self_attn_norm(states + self.dropout(update))
        states = self.ffn_norm(states + self.dropout(self.ffn(states)))
        return states, weights


def flatten_levels(features: list[FeatureMap]) -> Memory:
    """The maps of all levels as one sequence of tokens, before any encoding."""
    content = torch.cat([feature.content.flatten(2).transpose(1, 2) for feature in features], dim=1)
    position = torch.cat([feature.position.flatten(1, 2) for feature in features], dim=1)
    masks = [feature.mask.flatten(1) for feature in features if feature.mask is not None]
    shapes = [(feature.content.shape[-2], feature.content.shape[-1]) for feature in features]
    return Memory(content, position, torch.cat(masks, dim=1) if masks else None, shapes)


class Encoder(nn.Module):
    """A stack of encoder layers over the flattened maps. DAB-DETR scales positions by a function of the content."""

    self_attention: type[nn.Module] = DenseMemorySelfAttention

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config, self.self_attention) for _ in range(config.encoder_layers))
        self.position_scale = None
        if config.encoder_position_scale:
            self.position_scale = MLP(config.d_model, config.d_model, config.d_model, 2)

    def flatten(self, features: list[FeatureMap]) -> Memory:
        """The tokens of all levels, as the layers take them."""
        return flatten_levels(features)

    def forward(
        self, features: list[FeatureMap], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> Memory:
        """Encode the maps of all levels; `output_…` keep what each layer saw."""
        memory = self.flatten(features)
        states, hidden_states, attentions = memory.content, [memory.content], []
        for layer in self.layers:
            position = memory.position
            if self.position_scale is not None:
                position = position * self.position_scale(states)
            states, weights = layer(states, position, memory)
            hidden_states.append(states)
            attentions.append(weights)
        memory.content = states
        memory.hidden_states = tuple(hidden_states) if output_hidden_states else None
        memory.attentions = tuple(attentions) if output_attentions else None
        return memory
