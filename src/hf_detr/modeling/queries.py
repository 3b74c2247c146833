"""Where queries start: learned, placed at learned points or boxes, or selected from the memory.

Shapes: B batch, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import MLP, Memory
from .boxes import box_cxcywh_to_xyxy, box_iou, planar
from .configuration import HfDetrConfig
from .encoder import token_grid
from .heads import DetectionHeads
from .position import sine_embedding

_CANDIDATES = 4
"""Times as many tokens as queries are looked at when repeated boxes give way to others."""


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


def pick(tokens: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, S, C) at (B, Q) → (B, Q, C)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


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


class SelectedQueries(nn.Module):
    """Queries at the most promising tokens of the memory ("two-stage", "mixed selection").

    Every token proposes a box around its cell, twice as large on each coarser level; a head of its own scores and
    moves it, and the best `num_queries` become references, detached. With `query_content="memory"` content and
    position are computed from the reference (Deformable DETR), with "token" the content is the selected token itself,
    detached (RT-DETR); otherwise it is learned (DINO). Queries to be matched one to many take the next best tokens.

    With `distinct_iou` below 1, boxes that overlap a better one by more come after all others (DDQ-DETR, Zhang et al.
    2023, by non-maximum suppression; here one that was itself put back counts as a better one too, so that all pairs
    are compared at once): the decoder has fewer repetitions of one object to tell apart.
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.num_queries, self.width = config.num_queries, config.d_model // 2
        self.num_one_to_many = config.num_one_to_many_queries
        self.distinct_iou = config.distinct_iou
        self.from_memory = config.query_content == "memory"
        self.from_token = config.query_content == "token"
        self.projection = nn.Linear(config.d_model, config.d_model)
        self.projection_norm = nn.LayerNorm(config.d_model)
        self.heads = DetectionHeads(config, copies=1)
        if self.from_memory:
            self.reference_projection = nn.Linear(2 * config.d_model, 2 * config.d_model)
            self.reference_norm = nn.LayerNorm(2 * config.d_model)
        elif not self.from_token:
            self.content = nn.Embedding(config.num_queries, content_width(config))
            if self.num_one_to_many:
                self.one_to_many_content = nn.Embedding(self.num_one_to_many, content_width(config))

    def forward(self, memory: Memory, one_to_many: bool = False) -> Queries:
        """Select the queries of each image from its memory, on demand with those matched one to many."""
        anchors, usable = self.anchors(memory)
        states = memory.content.masked_fill(~usable, 0.0)
        states = self.projection_norm(self.projection(states))
        logits = self.heads.logits(0, states)
        # Deformable DETR trains class 0 to mean "any object"; DINO looks for the most probable class
        scores = logits[..., 0] if self.from_memory else logits.amax(-1)
        indices = self.select(scores, states, anchors, self.num_queries + one_to_many * self.num_one_to_many)
        own = indices[:, : self.num_queries]
        if self.from_memory:
            box_logits = self.heads.box_logits(0, states) + anchors
            references = pick(box_logits, indices).detach().sigmoid()
            proposals = Proposals(logits, box_logits.sigmoid(), True, own)
            content, position = self.derive(references, memory.content.dtype)
        else:
            selected = self.heads.box_logits(0, pick(states, indices)) + pick(anchors, indices)
            references = selected.detach().sigmoid()
            proposals = Proposals(pick(logits, own), selected[:, : self.num_queries].sigmoid(), False, own)
            content, position = self.content_of(states, indices, one_to_many), None
        num_one_to_many = indices.shape[1] - own.shape[1]
        return Queries(content, position, references, proposals, num_one_to_many)

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

    def anchors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """As `anchor_logits`."""
        return anchor_logits(memory)

    def content_of(self, states: Tensor, indices: Tensor, one_to_many: bool) -> Tensor:
        """(B, S, D) tokens and the (B, Q) selected ones → (B, Q, D), those matched one to many at the end."""
        if self.from_token:
            return pick(states, indices).detach()
        content = self.content.weight
        if one_to_many and self.num_one_to_many:
            content = torch.cat([content, self.one_to_many_content.weight])
        return content[: indices.shape[1]].expand(len(indices), -1, -1)

    def derive(self, references: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Content and position from the sine embedding of the selected boxes (x, y, w, h)."""
        embedding = sine_embedding(references, self.width, temperature=10000.0).to(dtype)
        derived = self.reference_norm(self.reference_projection(embedding))
        position, content = derived.chunk(2, dim=-1)
        return content, position


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
