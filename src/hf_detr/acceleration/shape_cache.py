"""What depends on nothing but the shape of an unpadded batch, computed once per shape.

Position embeddings, the cells and anchors of the tokens, and the first self-attention of the decoder where the queries
are the same for every image. Padded batches compute them anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TypeVar

from torch import Tensor, nn

from hf_detr.modeling.attention import Memory
from hf_detr.modeling.decoder import SinePosition
from hf_detr.modeling.encoder import Encoder
from hf_detr.modeling.queries import LearnedQueries
from hf_detr.modeling.query_selection import SelectedQueries

Value = TypeVar("Value")

MOST_SHAPES = 8
"""Kept per constant; the one that was not used for longest goes first."""


class Constants:
    """A few values by key, for several threads. Copies of a model, and pickles, start empty."""

    def __init__(self) -> None:
        self.values: OrderedDict[Hashable, object] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of a key; two threads that miss it at once both compute it."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        value = compute()
        with self.lock:
            self.values[key] = value
            while len(self.values) > MOST_SHAPES:
                self.values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self.values)

    def __reduce__(self) -> tuple:
        return Constants, ()


def shape_key(memory: Memory) -> Hashable:
    """What the constants of an unpadded memory depend on."""
    return len(memory.content), tuple(memory.spatial_shapes), memory.content.dtype, memory.content.device


class ConstantPosition(nn.Module):
    """The position embedding of a map."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding, self.constants = embedding, Constants()

    def forward(self, feature: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, H, W) map and its (B, H, W) mask → (B, H, W, D)."""
        if mask is not None:
            return self.embedding(feature, mask)
        key = (feature.shape[-2:], feature.dtype, feature.device)
        one = self.constants.get(key, lambda: self.embedding(feature[:1], None))
        return one.expand(len(feature), -1, -1, -1)


class ConstantPlaceEncoder(Encoder):
    """An encoder that knows positions (with the embeddings of the levels) and cells of its tokens."""

    def place(self, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """As in `Encoder`."""
        if memory.mask is not None:
            return super().place(memory)
        return self.constants.get(shape_key(memory), lambda: super(ConstantPlaceEncoder, self).place(memory))


class ConstantAnchorQueries(SelectedQueries):
    """Selected queries that know the anchors of the tokens."""

    def anchors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """As in `SelectedQueries`."""
        if memory.mask is not None:
            return super().anchors(memory)
        return self.constants.get(shape_key(memory), lambda: super(ConstantAnchorQueries, self).anchors(memory))


class ConstantSelfAttention(nn.Module):
    """Self-attention among queries that are the same in every image."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention, self.constants = attention, Constants()

    def forward(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states and positions → (update, weights or None), as in `SelfAttention`."""
        config = self.attention.config  # the implementation, which may be switched, decides whether there are weights
        key = (states.dtype, states.device, config._attn_implementation)
        update, weights = self.constants.get(key, lambda: self.attention(states[:1], position[:1], mask))
        batch = len(states)
        return update.expand(batch, -1, -1), None if weights is None else weights.expand(batch, -1, -1, -1)


def keep_constants(model: nn.Module) -> None:
    """Let an `HfDetrModel` in evaluation mode compute constants once; in place."""
    model.backbone.position_embedding = ConstantPosition(model.backbone.position_embedding)
    if model.encoder.level_embedding is not None:
        model.encoder.__class__, model.encoder.constants = ConstantPlaceEncoder, Constants()
    if isinstance(model.queries, SelectedQueries):
        model.queries.__class__, model.queries.constants = ConstantAnchorQueries, Constants()
    # boxes relative to the padded image move with the padding, and with them the positions of the queries
    moving = isinstance(model.decoder.position, SinePosition) and model.decoder.position.relative_to_padded
    if isinstance(model.queries, LearnedQueries) and not moving:
        first = model.decoder.layers[0]
        first.self_attn = ConstantSelfAttention(first.self_attn)
