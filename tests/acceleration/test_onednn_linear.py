"""Linear layers of a training on a CPU against those of torch."""

import copy

import pytest
import torch
from torch import nn

from hf_detr.acceleration.onednn_linear import LEAST_WORK, use_onednn


def results(layer: nn.Linear, states: torch.Tensor) -> list[torch.Tensor | None]:
    states = states.clone().requires_grad_()
    layer.zero_grad()
    output = layer(states)
    output.square().sum().backward()
    return [output, states.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 300, 256), (700, 256), (2, 3, 256), (0, 256)])
def test_outputs_and_gradients_are_equal(shape: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    layer, states = nn.Linear(256, 192, bias=bias), torch.randn(shape)
    expected = results(copy.deepcopy(layer), states)
    undo = use_onednn(layer)
    for found, wanted in zip(results(layer, states), expected, strict=True):
        if wanted is None:
            assert found is None
        else:
            largest = float(wanted.detach().abs().max()) if wanted.numel() else 1
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * largest)
    undo()
    assert type(layer) is nn.Linear


def test_large_products_only_in_float32_and_without_autocast():
    layer = nn.Linear(256, 256)
    use_onednn(layer)
    rows = LEAST_WORK // layer.weight.numel()
    assert type(layer(torch.randn(rows, 256)).grad_fn).__name__ == "_LinearBackward"
    assert type(layer(torch.randn(rows - 1, 256)).grad_fn).__name__ == "AddmmBackward0"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(rows, 256)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(rows, 256).double()).dtype == torch.float64


def test_frozen_weights_get_no_gradient():
    layer = nn.Linear(256, 256).requires_grad_(False)
    use_onednn(layer)
    states = torch.randn(1000, 256, requires_grad=True)
    layer(states).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    torch.testing.assert_close(states.grad, layer.weight.sum(0).expand_as(states))
