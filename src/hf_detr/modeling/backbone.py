"""Pixels → feature maps of the transformer's width: a timm model, frozen as published, and input projections.

Shapes: B batch, C channels, H and W rows and columns of a map, D transformer width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration import HfDetrConfig
from .learned_position import LearnedPositionEmbedding
from .position import SinePositionEmbedding
from .timm_body import create_body, feature_info, freeze_stages, is_frozen

POSITION_EMBEDDINGS = {"sine": SinePositionEmbedding, "learned": LearnedPositionEmbedding}


class FeatureMap(NamedTuple):
    """One level of image features.

    Attributes:
        content: (B, D, H, W).
        mask: (B, H, W), True on real cells; None where nothing is padded.
        position: (B, H, W, D) position embedding of the cells.
    """

    content: Tensor
    mask: Tensor | None
    position: Tensor


def resize_mask(pixel_mask: Tensor | None, feature: Tensor) -> Tensor | None:
    """(B, height, width) pixel mask → the (B, H, W) mask of a map, by nearest neighbour from the full resolution."""
    if pixel_mask is None:
        return None
    return nn.functional.interpolate(pixel_mask[:, None].float(), size=feature.shape[-2:])[:, 0].bool()


class Backbone(nn.Module):
    """A timm feature extractor followed by one projection per level to the width of the transformer."""

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.frozen_stages = config.frozen_stages
        self.num_channels = config.num_channels
        self.body = create_body(config, num_maps=max(1, config.num_feature_levels - 1))
        self.freeze()
        self.channels = feature_info(self.body).channels()
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self.norms = None
        if config.backbone_output_norm:
            self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        self.projections = build_projections(config, self.channels)
        self.position_embedding = POSITION_EMBEDDINGS[config.position_embedding](config)

    def freeze(self) -> None:
        """Stop training the stem and the first `frozen_stages` stages (-1: train everything).

        Raises:
            ValueError: when the backbone has fewer stages.
        """
        freeze_stages(self.body, self.frozen_stages)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode of all parts, except that a batch norm whose parameters are not trained keeps its statistics.

        Its statistics would otherwise follow the training images although nothing of it is meant to change: a frozen
        stage would give other maps, and an adapter (LoRA), whose file holds no statistics, would be loaded beside
        others than it was trained with.
        """
        super().train(mode)
        for module in self.body.modules() if mode else ():
            if hasattr(module, "running_var") and is_frozen(module):
                module.eval()
        return self

    def initialise(self) -> None:
        """Projections as published: torch's own values before a dense encoder, Xavier's before a deformable one."""
        for projection in self.projections:
            if isinstance(projection, nn.Conv2d):
                init.kaiming_uniform_(projection.weight, a=5**0.5)
                continue
            for layer in projection.children():
                if isinstance(layer, nn.Conv2d):
                    init.xavier_uniform_(layer.weight)

    def feature_maps(self, pixel_values: Tensor) -> list[Tensor]:
        """(B, 3, height, width) images → raw maps (B, C, H, W), finest first."""
        if self.training:  # convolutions are as fast or faster with the channels last, norms and pooling much faster
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        maps = self.body(pixel_values)
        if self.norms is None:
            return [feature.permute(0, 3, 1, 2) for feature in maps] if self.channels_last else maps
        if not self.channels_last:
            maps = [feature.permute(0, 2, 3, 1) for feature in maps]
        return [norm(feature).permute(0, 3, 1, 2) for norm, feature in zip(self.norms, maps, strict=True)]

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> tuple[list[FeatureMap], list[Tensor]]:
        """Features for the encoder, and the raw maps behind them.

        Args:
            pixel_values: (B, 3, height, width) normalised images.
            pixel_mask: (B, height, width), true on real pixels, or None when no image is padded.
        """
        raw_maps = self.feature_maps(pixel_values)
        features: list[FeatureMap] = []
        for level, projection in enumerate(self.projections):
            if level < len(raw_maps):
                source = raw_maps[level]
            elif level == len(raw_maps):  # the first extra level reads the raw map, the next the level before
                source = raw_maps[-1]
            else:
                source = features[-1].content
            content = projection(source)
            mask = resize_mask(pixel_mask, content)
            features.append(FeatureMap(content, mask, self.position_embedding(content, mask)))
        return features, raw_maps


def build_projections(config: HfDetrConfig, channels: list[int]) -> nn.ModuleList:
    """1×1 convolutions to the width of the transformer; deformable encoders add group norms and coarser levels."""
    if config.encoder == "dense":
        return nn.ModuleList([nn.Conv2d(channels[-1], config.d_model, kernel_size=1)])
    layers: list[nn.Module] = [nn.Conv2d(c, config.d_model, kernel_size=1) for c in channels]
    source = channels[-1]
    while len(layers) < config.num_feature_levels:
        layers.append(nn.Conv2d(source, config.d_model, kernel_size=3, stride=2, padding=1))
        source = config.d_model
    return nn.ModuleList(nn.Sequential(layer, nn.GroupNorm(32, config.d_model)) for layer in layers)
