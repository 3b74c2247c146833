"""Queries + memory → states and predictions of every layer, refining the references on the way.

Shapes: B batch, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import CrossAttention, Memory, QueryPosition, SelfAttention
from .conditional_attention import ConditionalCrossAttention, ConditionalSelfAttention, SpatialQuery
from .configuration import HfDetrConfig
from .deformable_attention import DeformableCrossAttention
from .encoder import FeedForward
from .heads import DetectionHeads
from .queries import Queries
from .reference_position import SinePosition
from .supervision import Predictions

CROSS_ATTENTIONS = {
    "dense": CrossAttention,
    "conditional": ConditionalCrossAttention,
    "deformable": DeformableCrossAttention,
}


@dataclass
class Decoded:
    """What the decoder returns.

    Attributes:
        hidden_states: (B, Q, D) input of the first layer and the output of each, before the shared norm.
        last_hidden_state: (B, Q, D) output of the last layer, after it.
        logits, boxes: (B, Q, K) and (B, Q, 4) of each layer that was asked for; the last layer is the last item.
        attentions, cross_attentions: weights of each layer, where the attention gives them.
    """

    hidden_states: list[Tensor]
    last_hidden_state: Tensor
    predictions: Predictions
    attentions: list[Tensor | None]
    cross_attentions: list[Tensor | None]


class DecoderLayer(GradientCheckpointingLayer):
    """Self-attention among the queries, cross-attention on the memory, feed-forward; norms follow the sums."""

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__()
        self_attention = ConditionalSelfAttention if config.cross_attention == "conditional" else SelfAttention
        self.self_attn = self_attention(config, config.decoder_attention_heads)
        self.self_attn_norm = nn.LayerNorm(config.d_model)
        self.cross_attn = CROSS_ATTENTIONS[config.cross_attention](config, layer_index)
        self.cross_attn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config, config.decoder_ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        states: Tensor,
        position: QueryPosition,
        reference_points: Tensor | None,
        memory: Memory,
        attention_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, Q, D) states → (states, self-attention weights or None, cross-attention weights or None)."""
        update, self_weights = self.self_attn(states, position.embedding, attention_mask)
        states = self.self_attn_norm(states + self.dropout(update))
        update, cross_weights = self.cross_attn(states, position, reference_points, memory)
        states = self.cross_attn_norm(states + self.dropout(update))
        states = self.ffn_norm(states + self.dropout(self.ffn(states)))
        return states, self_weights, cross_weights


class FixedPosition(nn.Module):
    """The position that the queries came with, in every layer."""

    def forward(
        self, layer_index: int, states: Tensor, reference_points: Tensor | None, queries: Queries, memory: Memory
    ) -> Tensor:
        """→ (B, Q, D)."""
        assert queries.position is not None  # the queries of this choice are made with positions
        return queries.position


QUERY_POSITIONS = {"learned": lambda config: FixedPosition(), "sine": SinePosition}


class Decoder(nn.Module):
    """A stack of decoder layers. The heads are passed to `forward`, as they also refine the references."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.decoder_norm else nn.Identity()
        self.position = QUERY_POSITIONS[config.query_position](config)
        self.spatial = SpatialQuery(config) if config.cross_attention == "conditional" else None
        self.refine_per_layer = config.box_refinement == "per_layer"
        self.look_forward_twice = config.box_refinement == "look_forward_twice"

    def place(
        self, index: int, states: Tensor, reference: Tensor | None, queries: Queries, memory: Memory
    ) -> QueryPosition:
        """The position of the queries in layer `index`."""
        embedding = self.position(index, states, reference, queries, memory)
        spatial = None if self.spatial is None else self.spatial(index, states, reference)
        return QueryPosition(embedding, spatial)

    def forward(self, queries: Queries, memory: Memory, heads: DetectionHeads, all_layers: bool) -> Decoded:
        """Decode; `all_layers` predicts from every layer, not only from the last.

        The references used for looking are always detached after a refinement. With `look_forward_twice` the box of a
        layer is relative to the refinement of the layer before *with* its gradient, made from the state before the
        shared norm (DAB-DETR, DINO).
        """
        states, attention_mask = queries.content, queries.attention_mask
        reference = output_reference = queries.reference_points
        hidden_states, attentions, cross_attentions, logits, boxes = [states], [], [], [], []
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            position = self.place(index, states, reference, queries, memory)
            states, self_weights, cross_weights = layer(states, position, reference, memory, attention_mask)
            hidden_states.append(states)
            attentions.append(self_weights)
            cross_attentions.append(cross_weights)
            if all_layers or last or self.refine_per_layer:
                normed = self.norm(states)
                boxes.append(heads.boxes(index, normed, output_reference))
            if all_layers or last:
                logits.append(heads.logits(index, normed))
            if self.refine_per_layer:
                reference = output_reference = boxes[-1].detach()
            elif self.look_forward_twice and not last:
                output_reference = heads.boxes(index, states, reference)
                reference = output_reference.detach()
        predictions = Predictions(torch.stack(logits), torch.stack(boxes[-len(logits) :]))
        return Decoded(hidden_states, normed, predictions, attentions, cross_attentions)
