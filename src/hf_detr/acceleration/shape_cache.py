"""Keeps results that depend on nothing but the shape of an unpadded batch, so that they are computed once a shape.

These are the position embeddings, the cells and anchors of the tokens, and the first self-attention of the decoder
where the queries are the same for every image. Padded batches compute them anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor, nn

from hf_detr.modeling.attention import DenseAttention, Memory
from hf_detr.modeling.deformable_attention import DeformableMemory
from hf_detr.modeling.deformable_encoder import DeformableEncoder
from hf_detr.modeling.detr import HfDetrModel
from hf_detr.modeling.queries import LearnedQueries
from hf_detr.modeling.query_selection import SelectedQueries
from hf_detr.modeling.reference_position import SinePosition

from .passes import Undo, alter

Value = TypeVar("Value")

MOST_SHAPES = 8
"""Shapes whose results are kept for each constant. When one more comes, the result whose last use is longest ago is
dropped."""


class Constants:
    """A table of a few values by key, for several threads. Copies and pickles of a model start with an empty one."""

    def __init__(self) -> None:
        self.values: OrderedDict[Hashable, Any] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of a key. Two threads that miss it at the same time both compute it."""
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
    """Return all that the constants of an unpadded memory depend on."""
    return len(memory.content), tuple(memory.spatial_shapes), memory.content.dtype, memory.content.device


class ConstantPosition(nn.Module):
    """A position embedding that is kept for each shape of a map."""

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


class ConstantPlaceEncoder(DeformableEncoder):
    """An encoder that keeps the positions (with the embeddings of the levels) and the cells of its tokens."""

    constants: Constants

    def place(self, memory: Memory, valid_ratios: Tensor) -> tuple[Tensor, Tensor]:
        """See `DeformableEncoder`."""
        compute = partial(super().place, memory, valid_ratios)
        return compute() if memory.mask is not None else self.constants.get(shape_key(memory), compute)


class ConstantAnchorQueries(SelectedQueries):
    """Selected queries that keep the anchors of the tokens."""

    constants: Constants

    def anchors(self, memory: DeformableMemory) -> tuple[Tensor, Tensor]:
        """See `SelectedQueries`."""
        if memory.mask is not None:
            return super().anchors(memory)
        return self.constants.get(shape_key(memory), lambda: super(ConstantAnchorQueries, self).anchors(memory))


class ConstantSelfAttention(nn.Module):
    """Self-attention whose result is kept, because its queries are the same in every image."""

    def __init__(self, attention: DenseAttention):
        super().__init__()
        self.attention, self.constants = attention, Constants()

    def forward(self, states: Tensor, position: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, Q, D) states and positions → (update, weights or None), as in `SelfAttention`."""
        # The attention implementation may be switched, and it decides whether there are weights.
        config = self.attention.config
        key = (states.dtype, states.device, config._attn_implementation)
        update, weights = self.constants.get(key, lambda: self.attention(states[:1], position[:1], mask))
        batch = len(states)
        return update.expand(batch, -1, -1), None if weights is None else weights.expand(batch, -1, -1, -1)


def keep_constants(model: nn.Module) -> Undo:
    """Let the networks of a model in evaluation mode compute constants once for each shape."""
    with ExitStack() as undos:
        for network in list(model.modules()):
            if isinstance(network, HfDetrModel):
                undos.callback(keep_constants_of(network))
        return undos.pop_all().close


def keep_constants_of(network: HfDetrModel) -> Undo:
    """Let one network compute constants once for each shape."""
    backbone, encoder, queries, decoder = network.backbone, network.encoder, network.queries, network.decoder
    with ExitStack() as undos:
        position = ConstantPosition(backbone.position_embedding)
        undos.callback(alter(backbone, position_embedding=position))
        if isinstance(encoder, DeformableEncoder):
            undos.callback(alter(encoder, ConstantPlaceEncoder, constants=Constants()))
        if isinstance(queries, SelectedQueries):
            undos.callback(alter(queries, ConstantAnchorQueries, constants=Constants()))
        # Boxes relative to the padded image move with the padding, and the positions of the queries move with them.
        moving = isinstance(decoder.position, SinePosition) and decoder.position.relative_to_padded
        if isinstance(queries, LearnedQueries) and not moving:
            first = decoder.layers[0]
            attention = first.self_attn
            if isinstance(attention, DenseAttention):
                undos.callback(alter(first, self_attn=ConstantSelfAttention(attention)))
        return undos.pop_all().close
