"""Where queries start: learned, or placed at learned points or boxes.

Shapes: B batch, Q queries, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .attention import MLP, Memory
from .configuration import HfDetrConfig
from .supervision import PredictionGroup, Predictions
from .targets import Targets


@dataclass
class TrainingQueries:
    """Queries that exist in training only, and how they are supervised.

    Attributes:
        num_queries, num_groups: they form groups of equal size, none of which sees another.
        supervise: their predictions → the group that they are.
    """

    num_queries: int
    num_groups: int
    supervise: Callable[[Predictions], PredictionGroup]


@dataclass
class Queries:
    """What the decoder starts from.

    Attributes:
        content: (B, Q, D).
        position: (B, Q, D) fixed position embedding, or None when it follows the references.
        reference_points: (B, Q, 2) points or (B, Q, 4) boxes in [0, 1], at least float32, or None.
        groups: what was predicted to find the queries, where that is supervised.
        training: the leading queries that exist in training only, in this order.
    """

    content: Tensor
    position: Tensor | None
    reference_points: Tensor | None
    groups: list[PredictionGroup] = field(default_factory=list)
    training: list[TrainingQueries] = field(default_factory=list)

    @property
    def attention_mask(self) -> Tensor | None:
        """(1, 1, Q, Q), True where a query may attend to another; None where all may.

        Every query sees its own group, and the queries of inference. No one else sees another group: neither the
        ground truth nor what is absent at inference can leak into the predictions.
        """
        if not self.training:
            return None
        device, groups, num_groups = self.content.device, [], 0
        for part in self.training:
            size = part.num_queries // part.num_groups
            groups.append(torch.arange(part.num_queries, device=device) // size + num_groups)
            num_groups += part.num_groups
        num_own = self.content.shape[1] - sum(part.num_queries for part in self.training)
        group = torch.cat([*groups, torch.full((num_own,), num_groups, device=device)])
        return ((group[:, None] == group) | (group == num_groups))[None, None]

    def split(self, predictions: Predictions) -> tuple[Predictions, list[PredictionGroup]]:
        """What the decoder predicted → the predictions of inference, and the groups to supervise beside them."""
        groups, start = list(self.groups), 0
        for part in self.training:
            groups.append(part.supervise(predictions.queries(slice(start, start + part.num_queries))))
            start += part.num_queries
        return predictions.queries(slice(start, None)) if start else predictions, groups


def content_width(config: HfDetrConfig) -> int:
    """Width of the query content before denoising adds its indicator of one feature (DN-DETR)."""
    return config.d_model - (config.denoising == "dn")


class LearnedQueries(nn.Module):
    """The same queries for every image. Their references are embeddings, or read from the position embedding."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.width = content_width(config)
        self.num_queries = config.num_queries
        self.content = nn.Embedding(config.num_queries, self.width) if config.query_content == "learned" else None
        self.position = None
        if config.query_position == "learned":
            self.position = nn.Embedding(config.num_queries, config.d_model)
        self.reference_box = nn.Embedding(config.num_queries, 4) if config.query_reference == "box" else None
        self.reference_point = None
        if config.query_reference == "point":
            # Conditional DETR reads the point with a hidden layer, Deformable DETR without
            num_layers = 2 if config.cross_attention == "conditional" else 1
            self.reference_point = MLP(config.d_model, config.d_model, 2, num_layers)

    def references(self) -> Tensor | None:
        """(Q, 2 or 4) references in [0, 1], or None."""
        if self.reference_box is not None:
            logits = self.reference_box.weight
        elif self.reference_point is not None and self.position is not None:
            logits = self.reference_point(self.position.weight)
        else:
            return None
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()

    def forward(self, memory: Memory, targets: Targets | None = None) -> Queries:
        """The queries, expanded to the batch of the memory. The targets are not used."""
        batch = memory.content.shape[0]
        if self.content is None:
            content = memory.content.new_zeros(self.num_queries, self.width)
        else:
            content = self.content.weight
        references = self.references()
        return Queries(
            content.expand(batch, -1, -1),
            None if self.position is None else self.position.weight.expand(batch, -1, -1),
            None if references is None else references.expand(batch, -1, -1),
        )
