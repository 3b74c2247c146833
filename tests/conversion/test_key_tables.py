"""Key tables: every key is accounted for, or the conversion names what is wrong."""

import pytest
import torch
from torch import nn

from hf_detr.conversion.key_tables import ConversionError, convert_state_dict, rule


@pytest.fixture
def model() -> nn.Module:
    model = nn.Module()
    model.first, model.second = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)
    return model


TABLE = [
    rule(r"joint\.weight", "first.weight", "second.weight"),
    rule(r"columns\.weight", "first.weight", "second.weight", dim=1),
    rule(r"layer(\d)\.w", r"\1.weight"),
    rule(r"(first|second)\.w(?:eight)?", r"\1.weight"),
    rule(r"first\..+", "never.reached"),
    rule(r"copy\..+"),
]


def test_rename(model: nn.Module):
    first, second = torch.rand(3, 2), torch.rand(3, 2)
    converted = convert_state_dict({"first.w": first, "second.weight": second}, TABLE, model)
    assert converted.keys() == model.state_dict().keys()
    assert torch.equal(converted["first.weight"], first)
    assert torch.equal(converted["second.weight"], second)


@pytest.mark.parametrize(("key", "dim"), [("joint.weight", 0), ("columns.weight", 1)])
def test_cut(key: str, dim: int, model: nn.Module):
    parts = torch.rand(3, 2), torch.rand(3, 2)
    converted = convert_state_dict({key: torch.cat(parts, dim)}, TABLE, model)
    for name, part in zip(("first.weight", "second.weight"), parts, strict=True):
        assert torch.equal(converted[name], part)
        assert converted[name].is_contiguous()
    pointers = {tensor.untyped_storage().data_ptr() for tensor in converted.values()}
    assert len(pointers) == 2  # parts that shared memory could not be trained or saved apart


def test_dropped_keys_leave_no_trace(model: nn.Module):
    weights = {"first.w": torch.rand(3, 2), "second.w": torch.rand(3, 2), "copy.of.first": torch.rand(1)}
    assert len(convert_state_dict(weights, TABLE, model)) == 2


def test_copies_must_agree(model: nn.Module):
    first = torch.rand(3, 2)
    weights = {"first.w": first, "first.weight": first.clone(), "second.w": first}
    assert torch.equal(convert_state_dict(weights, TABLE, model)["first.weight"], first)
    with pytest.raises(ConversionError, match=r"differ \(1\): first.weight \(first.weight\)$"):
        convert_state_dict({**weights, "first.weight": first + 1}, TABLE, model)


def test_every_problem_is_in_one_message(model: nn.Module):
    weights = {
        "first.w": torch.rand(2, 2),
        "layer0.w": torch.rand(1),
        "other": torch.rand(1),
        "another": torch.rand(1),
    }
    with pytest.raises(ConversionError) as raised:
        convert_state_dict(weights, TABLE, model)
    assert str(raised.value).splitlines() == [
        "The checkpoint does not fit the model.",
        "Keys of the checkpoint that are not understood (2): other, another",
        "Keys of the checkpoint that this model has no place for (1): 0.weight",
        "Keys of the model that the checkpoint does not fill (1): second.weight",
        "Tensors of another shape (1): first.weight is (2, 2), expected (3, 2)",
    ]


def test_a_tensor_that_cannot_be_cut_evenly(model: nn.Module):
    with pytest.raises(ConversionError, match=r"second.weight is \(2, 2\), expected \(3, 2\)"):
        convert_state_dict({"joint.weight": torch.rand(5, 2)}, TABLE, model)


def test_counters_of_batch_norms_are_filled():
    converted = convert_state_dict(
        {name: torch.rand(3) for name in ("weight", "bias", "running_mean", "running_var")},
        [rule(r"(\w+)", r"\1")],
        nn.BatchNorm2d(3),
    )
    assert converted["num_batches_tracked"] == 0


def test_the_model_may_be_on_the_meta_device():
    with torch.device("meta"):
        model = nn.BatchNorm2d(3)
    weights = {name: torch.rand(3) for name in ("weight", "bias", "running_mean", "running_var")}
    converted = convert_state_dict(weights, [rule(r"(\w+)", r"\1")], model)
    assert {tensor.device.type for tensor in converted.values()} == {"cpu"}
