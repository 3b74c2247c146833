import copy

import pytest
import torch
from timm.layers.norm_act import FrozenBatchNorm2d, FrozenBatchNormAct2d
from torch import nn

from hf_detr import HfDetrConfig, HfDetrForObjectDetection
from hf_detr.acceleration.frozen_norms import (
    FOLDED,
    NormedConv2d,
    fold_frozen_norms,
    fold_frozen_norms_of,
)

SIZES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5, "num_labels": 3}


def detector(backbone: str, **fields) -> HfDetrForObjectDetection:
    """A small detector whose frozen norms do something."""
    torch.manual_seed(0)
    model = HfDetrForObjectDetection(HfDetrConfig(backbone=backbone, dropout=0.0, **SIZES, **fields)).train()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | FrozenBatchNormAct2d):
            for buffer, lowest in ((module.weight, 0.2), (module.bias, -0.5), (module.running_var, 0.5)):
                buffer.uniform_(lowest, 1.5)
            module.running_mean.normal_()
    return model.double()


def gradients(model: HfDetrForObjectDetection, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    sum(level.square().mean() for level in model.model.backbone.feature_maps(pixels)).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenetv3_small_050"])
def test_maps_and_gradients_stay_and_the_norms_are_gone(backbone: str):
    model = detector(backbone, frozen_stages=0)
    pixels = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    body = model.model.backbone.body
    before, keys = body(pixels), list(model.state_dict())
    expected = gradients(model, pixels)

    undo = fold_frozen_norms(model)
    norms = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d | FrozenBatchNormAct2d)]
    assert norms
    assert all(type(norm) in FOLDED.values() for norm in norms)
    assert list(model.state_dict()) == keys
    for found, wanted in zip(body(pixels), before, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    found = gradients(model, pixels)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-12, msg=name)

    undo()
    assert not [module for module in model.modules() if type(module) in (NormedConv2d, *FOLDED.values())]
    for found, wanted in zip(body(pixels), before, strict=True):
        assert torch.equal(found, wanted)


def test_norms_that_learn_are_left_alone():
    model = detector("resnet18", freeze_batch_norm=False)
    state = copy.deepcopy(model.state_dict())
    fold_frozen_norms(model)
    assert not [module for module in model.modules() if type(module) in (NormedConv2d, *FOLDED.values())]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_convolution_that_others_read_as_well_keeps_its_norm():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)
            self.norm.weight.fill_(2.0)

        def forward(self, pixels):
            convolved = self.convolution(pixels)
            return [convolved, self.norm(convolved)]

    shared = Shared()
    fold_frozen_norms_of(shared, 3)
    assert type(shared.convolution) is nn.Conv2d
    assert type(shared.norm) is FrozenBatchNorm2d
