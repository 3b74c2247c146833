"""Position embeddings of feature maps that are learned: the variant of DETR with `position_embedding="learned"`.

Shapes: B batch, H and W rows and columns of a map, D embedding width.
"""

import torch
from torch import Tensor, nn

from .configuration import HfDetrConfig


class LearnedPositionEmbedding(nn.Module):
    """Learned embedding of rows and columns, for maps of at most `max_size` cells a side (facebookresearch/detr)."""

    max_size = 50

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.row_embedding = nn.Embedding(self.max_size, config.d_model // 2)
        self.column_embedding = nn.Embedding(self.max_size, config.d_model // 2)

    def forward(self, feature: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, H, W) map → (B, H, W, D) embedding; the mask is not used. Raises ValueError for larger maps."""
        batch, _, height, width = feature.shape
        if max(height, width) > self.max_size:
            raise ValueError(
                f"A learned position embedding covers feature maps of up to {self.max_size} cells a side; this one is "
                f"{height}x{width}. Use smaller images or position_embedding='sine'."
            )
        rows = self.row_embedding.weight[:height, None].expand(-1, width, -1)
        columns = self.column_embedding.weight[None, :width].expand(height, -1, -1)
        return torch.cat([columns, rows], dim=-1).expand(batch, -1, -1, -1)
