"""Where queries start: learned, placed at learned points or boxes, or selected from the memory.

Shapes: B batch, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import MLP, Memory
from .configuration import HfDetrConfig


@dataclass
class Proposals:
    """What the encoder itself predicts, to be supervised like a decoder layer.

    Attributes:
        logits: (B, Q, K) of the selected tokens, or (B, S, K) of all.
        boxes: the same tokens' boxes (…, 4), normalised cxcywh.
        class_agnostic: whether they only tell objects from background, as class 0 (two-stage Deformable DETR).
        indices: (B, Q) the selected tokens, best first.
    """

    logits: Tensor
    boxes: Tensor
    class_agnostic: bool
    indices: Tensor


@dataclass
class Queries:
    """What the decoder starts from.

    Attributes:
        content: (B, Q, D).
        position: (B, Q, D) fixed position embedding, or None when it follows the references.
        reference_points: (B, Q, 2) points or (B, Q, 4) boxes in [0, 1], at least float32, or None.
        proposals: the encoder's predictions, or None.
        num_one_to_many: how many queries at the end are matched one to many, in training.
        num_denoising, num_denoising_groups: how many at the start are denoising queries, and in how many groups.
    """

    content: Tensor
    position: Tensor | None
    reference_points: Tensor | None
    proposals: Proposals | None = None
    num_one_to_many: int = 0
    num_denoising: int = 0
    num_denoising_groups: int = 0

    @property
    def attention_mask(self) -> Tensor | None:
        """(1, 1, Q, Q), True where a query may attend to another; None where all may.

        Every query sees its own kind: one group of denoising queries, the one-to-one queries, those matched one to
        many. Denoising queries see the one-to-one queries as well. No one else sees another kind: neither the ground
        truth nor what is absent at inference can leak into the predictions.
        """
        if not (self.num_one_to_many or self.num_denoising):
            return None
        total = self.content.shape[1]
        query = torch.arange(total, device=self.content.device)
        kind = (query >= total - self.num_one_to_many).long()  # 0 one-to-one, 1 one-to-many, negative denoising
        if self.num_denoising:
            group_size = self.num_denoising // self.num_denoising_groups
            kind = kind.where(query >= self.num_denoising, query // group_size - self.num_denoising_groups)
        allowed = (kind[:, None] == kind) | ((kind[:, None] < 0) & (kind == 0))
        return allowed[None, None]


def content_width(config: HfDetrConfig) -> int:
    """Width of the query content before denoising adds its indicator of one feature (DN-DETR)."""
    return config.d_model - (config.denoising == "dn")


def concatenate(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Two parts of the same queries' (B, Q, …), or None where there is none."""
    return None if first is None else torch.cat([first, second], dim=1)


class LearnedQueries(nn.Module):
    """The same queries for every image. Their references are embeddings, or read from the position embedding.

    Queries to be matched one to many are a second set, `one_to_many`.
    """

    def __init__(self, config: HfDetrConfig, num_queries: int, num_one_to_many: int = 0):
        super().__init__()
        self.width = content_width(config)
        self.num_queries = num_queries
        self.content = nn.Embedding(num_queries, self.width) if config.query_content == "learned" else None
        self.position = None
        if config.query_position == "learned":
            self.position = nn.Embedding(num_queries, config.d_model)
        self.reference_box = nn.Embedding(num_queries, 4) if config.query_reference == "box" else None
        self.one_to_many = LearnedQueries(config, num_one_to_many) if num_one_to_many else None
        self.reference_point = None
        if config.query_reference == "point":
            # Conditional DETR reads the point with a hidden layer, Deformable DETR without
            num_layers = 2 if config.cross_attention == "conditional" else 1
            self.reference_point = MLP(config.d_model, config.d_model, 2, num_layers)

    def references(self) -> Tensor | None:
        """(Q, 2 or 4) references in [0, 1], or None."""
        if self.reference_box is not None:
            logits = self.reference_box.weight
        elif self.reference_point is not None:
            logits = self.reference_point(self.position.weight)
        else:
            return None
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()

    def forward(self, memory: Memory, one_to_many: bool = False) -> Queries:
        """The queries, expanded to the batch of the memory; on demand followed by those matched one to many."""

        def expand(rows: Tensor | None) -> Tensor | None:
            return None if rows is None else rows.expand(memory.content.shape[0], -1, -1)

        if self.content is None:
            content = memory.content.new_zeros(self.num_queries, self.width)
        else:
            content = self.content.weight
        position = None if self.position is None else self.position.weight
        queries = Queries(expand(content), expand(position), expand(self.references()))
        if self.one_to_many is None or not one_to_many:
            return queries
        more = self.one_to_many(memory)
        return Queries(
            concatenate(queries.content, more.content),
            concatenate(queries.position, more.position),
            concatenate(queries.reference_points, more.reference_points),
            num_one_to_many=more.content.shape[1],
        )
