"""Sine embeddings, and the position embedding of feature maps that is made of them.

Shapes: B batch, H and W rows and columns of a map, D embedding width.
"""

import math

import torch
from torch import Tensor, nn

from .configuration import HfDetrConfig


def sine_embedding(coordinates: Tensor, width: int, temperature: float, scale: float = 2 * math.pi) -> Tensor:
    """Interleaved sines and cosines of each coordinate.

    Args:
        coordinates: (..., C), usually in [0, 1].
        width: number of features per coordinate (even).
        temperature: base of the geometric progression of wavelengths.
        scale: factor on the coordinates before the sines.

    Returns:
        (..., C * width): for each coordinate sin, cos, sin, cos … from the shortest wavelength to the longest.
    """
    exponent = torch.arange(0, width, 2, dtype=coordinates.dtype, device=coordinates.device) / width
    angles = coordinates[..., None] * scale / temperature**exponent
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


class SinePositionEmbedding(nn.Module):
    """Fixed embedding of map cells by their normalised position among the real (unpadded) cells.

    The first half of the features encodes the row, the second half the column (facebookresearch/detr). Deformable-DETR
    counts from the middle of a cell (`offset` -0.5), the others from its far edge (`offset` 0).
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.width = config.d_model // 2
        self.temperature = config.position_temperature
        self.offset = config.position_offset

    def forward(self, feature: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, H, W) map and its (B, H, W) mask, True on real cells → (B, H, W, D) embedding."""
        batch, _, height, width = feature.shape
        dtype = torch.promote_types(feature.dtype, torch.float32)  # half precision cannot count 1333 columns
        if mask is None:
            rows = torch.arange(1, height + 1, dtype=dtype, device=feature.device)[None, :, None]
            columns = torch.arange(1, width + 1, dtype=dtype, device=feature.device)[None, None, :]
            rows, columns = rows.expand(1, height, width), columns.expand(1, height, width)
        else:
            rows, columns = mask.cumsum(1, dtype=dtype), mask.cumsum(2, dtype=dtype)
        rows = (rows + self.offset) / (rows[:, -1:, :] + 1e-6)
        columns = (columns + self.offset) / (columns[:, :, -1:] + 1e-6)
        position = sine_embedding(torch.stack([rows, columns], dim=-1), self.width, self.temperature)
        return position.to(feature.dtype).expand(batch, -1, -1, -1)
