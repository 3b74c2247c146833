"""What the decoder starts from, and queries that are learned.

Shapes: B batch, Q queries, D width.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from .attention import Memory
from .configuration import HfDetrConfig
from .supervision import PredictionGroup, Predictions
from .targets import Targets
from .training_queries import TrainingQueries, group_mask


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
        """(1, 1, Q, Q), True where a query may attend to another; None where all may."""
        if not self.training:
            return None
        return group_mask(self.training, self.content.shape[1], self.content.device)

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
    """The same queries for every image."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.width = content_width(config)
        self.num_queries = config.num_queries
        self.content = nn.Embedding(config.num_queries, self.width) if config.query_content == "learned" else None
        self.position = None
        if config.query_position == "learned":
            self.position = nn.Embedding(config.num_queries, config.d_model)

    def references(self) -> Tensor | None:
        """(Q, 2 or 4) references in [0, 1], or None where queries look from nowhere in particular."""
        return None

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
