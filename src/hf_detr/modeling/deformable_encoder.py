"""The encoder of Deformable DETR: several levels of feature maps → DeformableMemory.

Shapes: B batch, S tokens of all levels, L levels, D width.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention import Memory
from .backbone import FeatureMap
from .configuration import HfDetrConfig
from .deformable_attention import DeformableMemory, DeformableSelfAttention
from .encoder import Encoder


def valid_ratio(feature: FeatureMap) -> Tensor:
    """(B, 2) share (x, y) of the map's width and height that is real, in at least float32."""
    batch, _, height, width = feature.content.shape
    dtype = torch.promote_types(feature.content.dtype, torch.float32)
    if feature.mask is None:
        return torch.ones(batch, 2, dtype=dtype, device=feature.content.device)
    real_width, real_height = feature.mask[:, 0].sum(-1), feature.mask[:, :, 0].sum(-1)
    return torch.stack([real_width.to(dtype) / width, real_height.to(dtype) / height], dim=-1)


def token_grid(spatial_shapes: list[tuple[int, int]], valid_ratios: Tensor) -> Tensor:
    """(B, S, 2) centre (x, y) of each token's cell, normalised by the real part of its level."""
    dtype, device = valid_ratios.dtype, valid_ratios.device
    centres = []
    for level, (height, width) in enumerate(spatial_shapes):
        rows = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        columns = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        cells = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], dim=-1)
        centres.append(cells.flatten(0, 1) / valid_ratios[:, None, level])
    return torch.cat(centres, dim=1)


class DeformableEncoder(Encoder):
    """An encoder that tells the levels apart by a learned embedding and places each token by its own cell."""

    self_attention = DeformableSelfAttention

    def __init__(self, config: HfDetrConfig):
        super().__init__(config)
        self.level_embedding = nn.Parameter(torch.zeros(config.num_feature_levels, config.d_model))

    def initialise(self) -> None:
        """The level embedding is drawn from N(0, 1)."""
        init.normal_(self.level_embedding)

    def flatten(self, features: list[FeatureMap]) -> DeformableMemory:
        """The tokens of all levels, with their cells and the real part of each level."""
        flat = super().flatten(features)
        valid_ratios = torch.stack([valid_ratio(feature) for feature in features], dim=1)
        position, grid = self.place(flat, valid_ratios)
        return DeformableMemory(
            flat.content, position, flat.mask, flat.spatial_shapes, valid_ratios=valid_ratios, grid=grid
        )

    def place(self, memory: Memory, valid_ratios: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) positions of the tokens with the embeddings of their levels; (B, S, 2) centres of their cells."""
        sizes = [height * width for height, width in memory.spatial_shapes]
        levels = [row.expand(size, -1) for row, size in zip(self.level_embedding, sizes, strict=True)]
        return memory.position + torch.cat(levels), token_grid(memory.spatial_shapes, valid_ratios)
