"""Where queries start: learned, placed at learned points or boxes, or selected from the memory.

Shapes: B batch, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import MLP, Memory
from .configuration import HfDetrConfig
from .encoder import token_grid
from .heads import DetectionHeads
from .position import sine_embedding


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
        attention_mask: (1, 1, Q, Q), True where a query may attend to another, or None.
        proposals: the encoder's predictions, or None.
    """

    content: Tensor
    position: Tensor | None
    reference_points: Tensor | None
    attention_mask: Tensor | None = None
    proposals: Proposals | None = None


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
        elif self.reference_point is not None:
            logits = self.reference_point(self.position.weight)
        else:
            return None
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()

    def forward(self, memory: Memory) -> Queries:
        """The queries, expanded to the batch of the memory."""

        def expand(rows: Tensor | None) -> Tensor | None:
            return None if rows is None else rows.expand(memory.content.shape[0], -1, -1)

        if self.content is None:
            content = memory.content.new_zeros(self.num_queries, self.width)
        else:
            content = self.content.weight
        position = None if self.position is None else self.position.weight
        return Queries(expand(content), expand(position), expand(self.references()))


class SelectedQueries(nn.Module):
    """Queries at the most promising tokens of the memory ("two-stage", "mixed selection").

    Every token proposes a box around its cell, twice as large on each coarser level; a head of its own scores and
    moves it, and the best `num_queries` become references, detached. With `query_content="memory"` content and
    position are computed from the reference (Deformable DETR); otherwise the content is learned (DINO).
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.num_queries, self.width = config.num_queries, config.d_model // 2
        self.from_memory = config.query_content == "memory"
        self.projection = nn.Linear(config.d_model, config.d_model)
        self.projection_norm = nn.LayerNorm(config.d_model)
        self.heads = DetectionHeads(config, copies=1)
        if self.from_memory:
            self.reference_projection = nn.Linear(2 * config.d_model, 2 * config.d_model)
            self.reference_norm = nn.LayerNorm(2 * config.d_model)
        else:
            self.content = nn.Embedding(config.num_queries, content_width(config))

    def forward(self, memory: Memory) -> Queries:
        """Select the queries of each image from its memory."""
        anchors, usable = anchor_logits(memory)
        states = memory.content.masked_fill(~usable, 0.0)
        states = self.projection_norm(self.projection(states))
        logits = self.heads.logits(0, states)
        box_logits = self.heads.box_logits(0, states) + anchors
        # Deformable DETR trains class 0 to mean "any object"; DINO looks for the most probable class
        scores = logits[..., 0] if self.from_memory else logits.amax(-1)
        indices = scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices  # a small image has few tokens
        selected = box_logits.gather(1, indices[..., None].expand(-1, -1, 4))
        if self.from_memory:
            proposals = Proposals(logits, box_logits.sigmoid(), True, indices)
            return self.derive(selected.detach(), proposals, memory.content.dtype)
        selected_logits = logits.gather(1, indices[..., None].expand(-1, -1, logits.shape[-1]))
        content = self.content.weight[: selected.shape[1]].expand(len(selected), -1, -1)
        proposals = Proposals(selected_logits, selected.sigmoid(), False, indices)
        return Queries(content, None, selected.detach().sigmoid(), proposals=proposals)

    def derive(self, box_logits: Tensor, proposals: Proposals, dtype: torch.dtype) -> Queries:
        """Position and content from the sine embedding of the selected boxes (x, y, w, h)."""
        references = box_logits.sigmoid()
        embedding = sine_embedding(references, self.width, temperature=10000.0).to(dtype)
        derived = self.reference_norm(self.reference_projection(embedding))
        position, content = derived.chunk(2, dim=-1)
        return Queries(content, position, references, proposals=proposals)


def anchor_logits(memory: Memory) -> tuple[Tensor, Tensor]:
    """The box that each token proposes before any prediction, of side 0.05·2^level around its cell.

    Returns:
        ((B, S, 4) cxcywh boxes in logit space, +inf for padded tokens and those too close to the border to be moved;
        (B, S, 1) True for the others).
    """
    grid = token_grid(memory)
    sides = [
        torch.full((height * width, 2), 0.05 * 2.0**level, dtype=grid.dtype, device=grid.device)
        for level, (height, width) in enumerate(memory.spatial_shapes)
    ]
    anchors = torch.cat([grid, torch.cat(sides).expand_as(grid)], dim=-1)
    usable = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
    if memory.mask is not None:
        usable = usable & memory.mask[..., None]
    return torch.log(anchors / (1 - anchors)).masked_fill(~usable, torch.inf), usable
