"""Every pass and its undo: afterwards a model is what it was, to the bit; and what passes leave out is told."""

import copy
import logging
import pickle

import pytest
import torch
from torch import nn

from hf_detr import available_presets, optimize_for_inference
from hf_detr.acceleration.coverage import LEFT_APART, unoptimised
from hf_detr.acceleration.inference import EXACT_PASSES, RUNTIME_PASSES
from hf_detr.acceleration.passes import REMOVED, alter, apply_passes
from hf_detr.acceleration.projection_fusion import FUSED
from hf_detr.acceleration.training import CPU_TRAINING_PASSES, faster_training
from hf_detr.modeling.attention import SelfAttention
from modeling.tiny import images, labels, tiny_model


class Doubled(nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(states)


def everything(model: nn.Module) -> list[tuple]:
    """What a pass may change: classes, attributes and the order of tensors and submodules."""
    return [
        (name, type(module), list(module.__dict__), list(module._parameters), list(module._buffers), *module._modules)
        for name, module in model.named_modules()
    ]


def test_alter_and_its_undo():
    layer = nn.Linear(2, 3)
    calls, before, weight = [], everything(layer), layer.weight
    layer.register_forward_hook(lambda *_: calls.append(1))
    undo = alter(layer, Doubled, weight=nn.Parameter(torch.ones(3, 2)), bias=REMOVED, note="new")
    assert list(layer.state_dict()) == ["weight"]
    layer.bias = None
    assert layer(torch.ones(1, 2)).tolist() == [[4.0, 4.0, 4.0]]
    undo()
    assert layer.weight is weight
    assert everything(layer) == before
    layer(torch.ones(1, 2))
    assert calls == [1, 1]


def test_passes_before_one_that_fails_are_undone():
    def fails(model: nn.Module) -> None:
        raise KeyError("no such layer")

    layer = nn.Linear(2, 3)
    with pytest.raises(KeyError):
        apply_passes(layer, [lambda model: alter(model, Doubled), fails])
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("preset", available_presets())
def test_passes_of_inference_cover_every_preset_and_are_undone(preset: str):
    model = tiny_model(preset).eval()
    pixels, before, state = images(1), everything(model), copy.deepcopy(model.state_dict())
    seen = []
    hook = model.model.encoder.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        expected = model(pixels).logits
        undo = apply_passes(model, EXACT_PASSES + RUNTIME_PASSES)
        assert unoptimised(model) == {}
        assert not shared_inputs(model, pixels)
        undo()
        assert torch.equal(model(pixels).logits, expected)
    assert len(seen) == 3
    hook.remove()
    assert everything(model) == before
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def shared_inputs(model: nn.Module, pixels: torch.Tensor) -> list[str]:
    """Modules outside of backbones with linear layers that read one tensor, but for those that are accounted for."""
    readers: dict[tuple[str, int], list[str]] = {}
    kept, hooks = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".body." not in name:
            parent = name.rpartition(".")[0]
            if type(model.get_submodule(parent)) not in LEFT_APART:

                def note(_, inputs, parent=parent, name=name):
                    kept.append(inputs[0])  # while it is held, no other tensor has its id
                    readers.setdefault((parent, id(inputs[0])), []).append(name)

                hooks.append(module.register_forward_pre_hook(note))
    model(pixels)
    for hook in hooks:
        hook.remove()
    return [parent for (parent, _), names in readers.items() if len(set(names)) > 1]


def test_an_attention_and_a_norm_that_no_pass_knows_are_told(caplog: pytest.LogCaptureFixture):
    class NewAttention(SelfAttention):
        pass

    class NewNorm(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states

    model = tiny_model("detr-resnet-50").eval()
    layers = model.model.decoder.layers
    for layer in layers:
        layer.self_attn.__class__ = NewAttention
    layers[0].ffn_norm = NewNorm()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    package = logging.getLogger("hf_detr")
    package.addHandler(caplog.handler)
    try:
        optimised = optimize_for_inference(model)
    finally:
        logger.removeHandler(caplog.handler)
        package.removeHandler(caplog.handler)
    assert unoptimised(optimised) == {"NewAttention": len(layers), "NewNorm": 1}
    assert f"NewAttention ({len(layers)} times in this model) runs unoptimised" in caplog.text
    assert "NewNorm (1 times in this model) runs unoptimised" in caplog.text


def test_every_fused_class_keeps_the_name_of_its_own():
    for plain, fused in FUSED.items():
        assert issubclass(fused, plain)
        assert fused.__name__ == f"Fused{plain.__name__}"


@pytest.mark.parametrize("preset", ["detr-resnet-50", "conditional-detr-resnet-50", "dino-resnet-50-4scale"])
def test_passes_of_training_are_undone_and_can_be_copied(preset: str):
    model = tiny_model(preset, dropout=0.1, attention_dropout=0.1).train()
    before, keys = everything(model), list(model.state_dict())
    with faster_training(model, "cpu"):
        assert everything(model) != before
        assert list(model.state_dict()) == keys
        losses = []
        for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.manual_seed(0)
            losses.append(one(images(2), labels=labels(3, 2)).loss)
        assert losses[0] == losses[1] == losses[2]
    assert everything(model) == before


def test_undo_of_a_training_keeps_what_happened_meanwhile():
    model = tiny_model("detr-resnet-50").train()
    undo = apply_passes(model, CPU_TRAINING_PASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.eval()
    trained = copy.deepcopy(model.state_dict())
    undo()
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
