"""Query positions that follow the reference points or boxes of the queries, as in Conditional DETR and DAB-DETR.

Shapes: B batch, Q queries, D width.
"""

from torch import Tensor, nn

from .attention import MLP, Memory
from .configuration import HfDetrConfig
from .deformable_attention import DeformableMemory
from .position import sine_embedding
from .queries import Queries


def sine_reference_embedding(reference_points: Tensor, width: int) -> Tensor:
    """Sine embedding of points (..., 2) or boxes (..., 4) with `width` features per coordinate.

    The order of the coordinates is y, x, (w, h): y first, to line up with the embedding of the feature maps
    (Conditional DETR and DAB-DETR). The temperature is 10000, also where the maps have another one.
    """
    order = [1, 0, 2, 3][: reference_points.shape[-1]]
    return sine_embedding(reference_points[..., order], width, temperature=10000.0)


class SinePosition(nn.Module):
    """An MLP of the sine embedding of the reference box, optionally scaled by the content from the second layer on.

    With several levels the box is taken relative to the padded image, as on the finest level (DAB-Deformable, DINO).
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.width = config.d_model // 2
        self.relative_to_padded = config.cross_attention == "deformable"
        self.head = MLP(2 * config.d_model, config.d_model, config.d_model, 2)
        self.scale = MLP(config.d_model, config.d_model, config.d_model, 2) if config.query_position_scale else None

    def forward(
        self, layer_index: int, states: Tensor, reference_points: Tensor, queries: Queries, memory: Memory
    ) -> Tensor:
        """→ (B, Q, D)."""
        if self.relative_to_padded:
            assert isinstance(memory, DeformableMemory)  # the configuration allows no other encoder here
            reference_points = reference_points * memory.valid_ratios[:, None, 0].repeat(1, 1, 2)
        position = self.head(sine_reference_embedding(reference_points, self.width).to(states.dtype))
        if self.scale is None or layer_index == 0:
            return position
        return position * self.scale(states)
