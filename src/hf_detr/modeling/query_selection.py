"""Queries selected from the memory ("two-stage").

Shapes: B batch, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .boxes import box_cxcywh_to_xyxy, box_iou, planar
from .configuration import HfDetrConfig
from .deformable_attention import DeformableMemory
from .heads import DetectionHeads
from .position import sine_embedding
from .queries import Queries, content_width
from .supervision import PredictionGroup, Predictions
from .targets import Targets

_CANDIDATES = 4
"""Times as many tokens as queries are looked at when repeated boxes give way to others."""


def pick(tokens: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, S, C) at (B, Q) → (B, Q, C)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


class SelectedQueries(nn.Module):
    """Queries at the most promising tokens of the memory ("two-stage", "mixed selection").

    Every token proposes a box around its cell, twice as large on each coarser level; a head of its own scores and
    moves it, and the best `num_queries` become references, detached. With `query_content="memory"` content and
    position are computed from the reference (Deformable DETR), with "token" the content is the selected token itself,
    detached (RT-DETR); otherwise it is learned (DINO).

    With `distinct_iou` below 1, a box whose IoU with a better box is larger than that is taken only after all boxes
    without such an overlap. The decoder then has fewer repetitions of one object to tell apart. DDQ-DETR (Zhang et al.
    2023) does the same by non-maximum suppression, in which a suppressed box suppresses no others. Here it still does,
    because then all pairs of boxes can be compared at once.
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.num_queries, self.width = config.num_queries, config.d_model // 2
        self.distinct_iou = config.distinct_iou
        self.from_memory = config.query_content == "memory"
        self.from_token = config.query_content == "token"
        self.projection = nn.Linear(config.d_model, config.d_model)
        self.projection_norm = nn.LayerNorm(config.d_model)
        self.heads = DetectionHeads(config, copies=1, class_agnostic=self.from_memory)
        if self.from_memory:
            self.reference_projection = nn.Linear(2 * config.d_model, 2 * config.d_model)
            self.reference_norm = nn.LayerNorm(2 * config.d_model)
        elif not self.from_token:
            self.content = nn.Embedding(config.num_queries, content_width(config))

    def forward(self, memory: DeformableMemory, targets: Targets | None = None) -> Queries:
        """Select the queries of each image from its memory; given targets, with the group of what was predicted."""
        anchors, usable = self.anchors(memory)
        states = memory.content.masked_fill(~usable, 0.0)
        states = self.projection_norm(self.projection(states))
        logits = self.heads.logits(0, states)
        # Deformable DETR trains class 0 to mean "any object"; DINO looks for the most probable class
        scores = logits[..., 0] if self.from_memory else logits.amax(-1)
        indices = self.select(scores, states, anchors, self.num_queries)
        if self.from_memory:
            box_logits = self.heads.box_logits(0, states) + anchors
            references = pick(box_logits, indices).detach().sigmoid()
            content, position = self.derive(references, memory.content.dtype)
        else:
            box_logits = self.heads.box_logits(0, pick(states, indices)) + pick(anchors, indices)
            references = box_logits.detach().sigmoid()
            content, position = self.content_of(states, indices), None
            logits = pick(logits, indices)
        queries = Queries(content, position, references)
        if targets is not None:
            queries.groups.append(self.supervise(Predictions(logits[None], box_logits.sigmoid()[None]), targets))
        return queries

    def supervise(self, proposals: Predictions, targets: Targets) -> PredictionGroup:
        """The group of the proposals: of all tokens, which only tell objects from background, or of those selected."""
        if self.from_memory:  # every object is of the class 0, "any object"
            targets = replace(targets, class_labels=torch.zeros_like(targets.class_labels))
        return PredictionGroup("enc", proposals, targets)

    @torch.no_grad()
    def select(self, scores: Tensor, states: Tensor, anchors: Tensor, wanted: int) -> Tensor:
        """(B, Q) tokens of the best (B, S) scores, those that repeat a better one last; best first."""
        num_tokens = scores.shape[1]  # a small image has few
        if self.distinct_iou >= 1:
            return scores.topk(min(wanted, num_tokens), dim=1).indices
        candidates = scores.topk(min(_CANDIDATES * wanted, num_tokens), dim=1).indices
        boxes = (self.heads.box_logits(0, pick(states, candidates)) + pick(anchors, candidates)).sigmoid()
        corners = planar(box_cxcywh_to_xyxy(boxes))
        overlaps, _ = box_iou(corners[:, :, None], corners[:, None])
        repeats = overlaps.tril(-1).amax(-1) > self.distinct_iou
        rank = torch.arange(repeats.shape[1], device=repeats.device)
        order = (rank + len(rank) * repeats).topk(min(wanted, num_tokens), dim=1, largest=False).indices
        return candidates.gather(1, order)

    def anchors(self, memory: DeformableMemory) -> tuple[Tensor, Tensor]:
        """As `anchor_logits`."""
        return anchor_logits(memory)

    def content_of(self, states: Tensor, indices: Tensor) -> Tensor:
        """(B, S, D) tokens and the (B, Q) selected ones → (B, Q, D)."""
        if self.from_token:
            return pick(states, indices).detach()
        return self.content.weight[: indices.shape[1]].expand(len(indices), -1, -1)

    def derive(self, references: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Content and position from the sine embedding of the selected boxes (x, y, w, h)."""
        embedding = sine_embedding(references, self.width, temperature=10000.0).to(dtype)
        derived = self.reference_norm(self.reference_projection(embedding))
        position, content = derived.chunk(2, dim=-1)
        return content, position


def anchor_logits(memory: DeformableMemory) -> tuple[Tensor, Tensor]:
    """The box that each token proposes before any prediction, of side 0.05·2^level around its cell.

    Returns:
        ((B, S, 4) cxcywh boxes in logit space, +inf for padded tokens and those too close to the border to be moved;
        (B, S, 1) True for the others).
    """
    grid = memory.grid
    sides = [
        torch.full((height * width, 2), 0.05 * 2.0**level, dtype=grid.dtype, device=grid.device)
        for level, (height, width) in enumerate(memory.spatial_shapes)
    ]
    anchors = torch.cat([grid, torch.cat(sides).expand_as(grid)], dim=-1)
    usable = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
    if memory.mask is not None:
        usable = usable & memory.mask[..., None]
    return torch.log(anchors / (1 - anchors)).masked_fill(~usable, torch.inf), usable
