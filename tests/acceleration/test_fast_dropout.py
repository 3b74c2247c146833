"""Dropout: how often, by how much, and the same mask forwards, backwards and again."""

import pytest
import torch
from torch import Tensor

from hf_detr.acceleration.fast_dropout import (
    FastDropout,
    attention_with_fast_dropout,
    fast_dropout,
    use_fast_dropout,
)
from modeling.tiny import images, labels, tiny_model


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_as_many_elements_as_asked_for_and_scaled(p: float):
    torch.manual_seed(0)
    dropped = fast_dropout(torch.ones(1001, 999), p, training=True)
    share = (dropped == 0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / dropped.numel()) ** 0.5 + 2**-17
    torch.testing.assert_close(dropped[dropped != 0].unique(), torch.tensor([1 / (1 - p)]))
    # the four elements that one random number decides are independent
    keep = (dropped.flatten()[:-3].view(-1, 4) != 0).double()
    assert (keep.mT.corrcoef() - torch.eye(4)).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_takes_the_same_mask(dtype: torch.dtype):
    states = torch.rand(3, 5, 7, dtype=dtype).add(1).requires_grad_()
    dropped = fast_dropout(states, 0.4, training=True)
    dropped.backward(torch.ones_like(dropped))
    torch.testing.assert_close(dropped, states.detach() * states.grad)
    assert dropped.dtype == dtype


def test_one_seed_one_mask():
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.stack([fast_dropout(torch.ones(64, 3), 0.5, training=True) for _ in range(2)])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(*draw(1))


def test_nothing_to_do():
    states = torch.rand(4, 5)
    assert torch.equal(FastDropout(0.3).eval()(states), states)
    assert torch.equal(fast_dropout(states, 0.0, training=True), states)
    assert (fast_dropout(states, 1.0, training=True) == 0).all()
    assert fast_dropout(torch.zeros(0, 3), 0.5, training=True).shape == (0, 3)


def test_attention_weights_are_dropped_by_it():
    module = torch.nn.Module().train()
    query = torch.rand(1, 2, 5, 8, dtype=torch.float64)
    torch.manual_seed(3)
    found, weights = attention_with_fast_dropout(module, query, query, query, None, 1.0, dropout=0.5)
    torch.manual_seed(3)
    expected = (fast_dropout(weights, 0.5, training=True) @ query).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_training_repeats_with_checkpointed_gradients():
    """Masks that are drawn again in the backward pass are the masks of the forward pass."""
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model("detr-resnet-50", dropout=0.3, attention_dropout=0.3, activation_dropout=0.3).train()
        use_fast_dropout(model)
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        model(images(2), labels=labels(3, 2)).loss.backward()
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
