"""Convolutions and linear layers that bring what follows them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from hf_detr import HfDetrConfig, HfDetrForObjectDetection
from hf_detr.acceleration.batch_norm_folding import fold_batch_norms_of
from hf_detr.acceleration.onednn_packing import PackedConv2d, PackedLinear, fuse_maps

SIZES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5, "num_labels": 3}


class Block(nn.Module):
    """A residual block; `variant` says what is unusual about it."""

    def __init__(self, variant: str):
        super().__init__()
        self.variant = variant
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        shortcut = self.first(x)
        y = self.second(shortcut)
        if self.variant == "read again":  # the shortcut must survive the sum
            return [self.activation(y + shortcut), shortcut]
        if self.variant == "sum of itself":
            return [self.activation(y + y)]
        if self.variant == "plus a number":
            return [self.activation(y + 1)]
        if self.variant == "broadcast":
            return [self.activation(y + shortcut.mean((2, 3), keepdim=True))]
        if self.variant == "called twice":
            return [self.second(self.activation(y))]
        if self.variant == "depends on its input":
            return [self.activation(y) if x.sum() > 0 else y]
        y += shortcut
        return [self.activation(y)]


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "merged"),
    [
        ("usual", 1),
        ("read again", 1),
        ("sum of itself", 0),
        ("plus a number", 0),
        ("broadcast", 0),
        ("called twice", 0),
        ("depends on its input", 0),
    ],
)
def test_maps_stay_what_they_are(variant: str, merged: int):
    torch.manual_seed(0)
    body, x = Block(variant), torch.randn(2, 3, 32, 40)
    fused = fuse_maps(body, num_channels=3)
    for _ in range(2):  # the second time with packed weights, and with maps that the first may have overwritten
        for found, wanted in zip(fused(x), body(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert sum(getattr(module, "activation", None) == "relu" for module in fused.modules()) >= merged


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet18d", "mobilenetv3_small_050", "convnext_atto"])
def test_backbones(backbone: str):
    """All convolutions of a ResNet are followed by a ReLU, most after a sum; of others, what there is."""
    torch.manual_seed(0)
    model = HfDetrForObjectDetection(HfDetrConfig(backbone=backbone, **SIZES)).eval()
    body = model.model.backbone.body
    fold_batch_norms_of(body)
    fused = fuse_maps(body, num_channels=3)
    for size in ((64, 96), (96, 64), (70, 90)):
        x = torch.randn(1, 3, *size)
        for found, wanted in zip(fused(x), body(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert fused is not body
    if backbone == "resnet50":
        convolutions = [module for module in fused.modules() if isinstance(module, PackedConv2d)]
        downsamplings = 4
        assert len(convolutions) == 53
        assert sum(module.activation == "relu" for module in convolutions) == 53 - downsamplings
        assert not any(isinstance(node.target, str) and "act" in node.target for node in fused.graph.nodes)


@torch.no_grad()
@pytest.mark.parametrize("layer", [nn.Linear(16, 24), nn.Linear(16, 24, bias=False), nn.Conv2d(16, 24, 3, groups=2)])
def test_packed_weights_follow_the_plain_ones(layer: nn.Module):
    """Moved, loaded, copied, pickled: what is packed is never older than the weights."""
    packed = copy.deepcopy(layer)
    packed.__class__ = PackedLinear if isinstance(layer, nn.Linear) else PackedConv2d
    packed.activation = "relu"
    x = torch.randn((2, 7, 16) if isinstance(layer, nn.Linear) else (2, 16, 9, 8))

    def check(module: nn.Module) -> None:
        torch.testing.assert_close(module(x), layer(x).relu(), rtol=1e-5, atol=1e-5)

    check(packed)
    assert packed.packed_weight is not None
    check(copy.deepcopy(packed))
    check(pickle.loads(pickle.dumps(packed)))
    torch.testing.assert_close(packed.double()(x.double()), layer(x).relu().double(), rtol=1e-5, atol=1e-5)
    check(packed.float())
    layer.weight.normal_()
    packed.load_state_dict(layer.state_dict())
    check(packed)
