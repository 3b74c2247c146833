"""Learned queries that look from a learned point or box, as in Conditional, Deformable and DAB-DETR.

Shapes: Q queries.
"""

import torch
from torch import Tensor, nn

from .attention import MLP
from .configuration import HfDetrConfig
from .queries import LearnedQueries


class PlacedQueries(LearnedQueries):
    """The same queries for every image. Their references are embeddings, or read from the position embedding."""

    def __init__(self, config: HfDetrConfig):
        super().__init__(config)
        self.reference_box = nn.Embedding(config.num_queries, 4) if config.query_reference == "box" else None
        self.reference_point = None
        if config.query_reference == "point":
            # Conditional DETR reads the point with a hidden layer, Deformable DETR without
            num_layers = 2 if config.cross_attention == "conditional" else 1
            self.reference_point = MLP(config.d_model, config.d_model, 2, num_layers)

    def references(self) -> Tensor:
        """(Q, 2 or 4) references in [0, 1]."""
        if self.reference_box is not None:
            logits = self.reference_box.weight
        else:
            assert self.reference_point is not None
            assert self.position is not None  # the configuration has no point without a learned position
            logits = self.reference_point(self.position.weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
