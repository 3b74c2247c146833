"""Dense self- and cross-attention, and what the encoder hands to every cross-attention.

Shapes: B batch, Q queries, S memory tokens, N heads, D width, E width of a head.
Every cross-attention has the same call: (states, position, reference_points, memory).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration import HfDetrConfig
from .eager_attention import eager_attention


@dataclass
class Memory:
    """What the encoder gives to the queries: the tokens of all levels, finest level first.

    Attributes:
        content: (B, S, D).
        position: (B, S, D) position embedding of the tokens.
        mask: (B, S), True on real tokens; None where nothing is padded.
        spatial_shapes: (height, width) of each level.
        hidden_states: the input of the first encoder layer and the output of each, when asked for.
        attentions: (B, N, S, S) weights of each encoder layer, when asked for.
    """

    content: Tensor
    position: Tensor
    mask: Tensor | None
    spatial_shapes: list[tuple[int, int]]
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

    @property
    def last(self) -> nn.Linear:
        """The layer that computes the output."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, states: Tensor) -> Tensor:
        """(..., input_dim) → (..., output_dim)."""
        for layer in self.layers[:-1]:
            states = layer(states).relu()
        return self.layers[-1](states)


class DenseAttention(nn.Module):
    """Scaled dot-product attention over already projected queries, keys and values, and the output projection."""

    is_causal = False

    def __init__(self, config: HfDetrConfig, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.dropout = config.attention_dropout
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def attention_function(self) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """The implementation that the config names, looked up at each call: it can be switched on a live model."""
        return ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)

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
        states, weights = self.attention_function()(
            self,
            query,
            key,
            value,
            attention_mask=mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=query.shape[-1] ** -0.5,
        )
        return self.out_proj(states.flatten(2)), weights


def key_mask(mask: Tensor | None) -> Tensor | None:
    """(B, S) mask of tokens → (B, 1, 1, S) mask for attention."""
    return None if mask is None else mask[:, None, None, :]


class PlacedAttention(DenseAttention):
    """Attention in which positions are added to queries and keys, not to values."""

    def __init__(self, config: HfDetrConfig, num_heads: int):
        super().__init__(config, num_heads)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)

    def project(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, D) states and positions → queries, keys and values."""
        placed = states + position
        return self.q_proj(placed), self.k_proj(placed), self.v_proj(states)

    def update(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states and positions, mask as in `attend` → ((B, Q, D) update, weights or None)."""
        query, key, value = map(self.split_heads, self.project(states, position))
        return self.attend(query, key, value, mask)


class SelfAttention(PlacedAttention):
    """Attention among queries."""

    def forward(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As `update`."""
        return self.update(states, position, mask)


class CrossAttention(PlacedAttention):
    """Attention of the queries on the memory."""

    def __init__(self, config: HfDetrConfig, layer_index: int):
        super().__init__(config, config.decoder_attention_heads)

    def forward(
        self, states: Tensor, position: QueryPosition, reference_points: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states → ((B, Q, D) update, (B, N, Q, S) weights or None). The references are not used."""
        query = self.q_proj(states + position.embedding)
        key, value = self.k_proj(memory.content + memory.position), self.v_proj(memory.content)
        query, key, value = map(self.split_heads, (query, key, value))
        return self.attend(query, key, value, key_mask(memory.mask))


class DenseMemorySelfAttention(PlacedAttention):
    """Dense attention among the tokens of the memory."""

    def __init__(self, config: HfDetrConfig):
        super().__init__(config, config.encoder_attention_heads)

    def forward(self, states: Tensor, position: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) states and positions → (update, weights or None)."""
        return self.update(states, position, key_mask(memory.mask))
