"""Predictions of every token of the memory, in training only: each object teaches several tokens at once.

One-to-one matching gives the encoder and the backbone few objects to learn from, and a model that starts from nothing
most needs to learn to see. Co-DETR (Zong et al. 2023) adds one-to-many heads on the encoder's output for this; ours is
one head whose targets come from the same matching as those of queries, every object repeated.

Shapes: B batch, S memory tokens, D width, K classes.
"""

from torch import Tensor, nn

from .attention import Memory
from .configuration import HfDetrConfig
from .heads import DetectionHeads
from .query_selection import anchor_logits


class DenseSupervision(nn.Module):
    """A class and a box for each token, relative to the box that the token proposes by its place."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.projection = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)
        self.heads = DetectionHeads(config, copies=1)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """The memory → logits (B, S, K) and normalised cxcywh boxes (B, S, 4)."""
        anchors, _ = anchor_logits(memory)
        states = self.norm(self.projection(memory.content))
        return self.heads.logits(0, states), (self.heads.box_logits(0, states) + anchors).sigmoid()
