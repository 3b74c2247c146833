"""Learning-rate schedule, parameter groups and optimizer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hf_detr.training import HfDetrTrainingArguments, parameter_groups


def rates(trainer, num_steps: int) -> list[float]:
    """The learning rate at each step of a run, as a share of the highest."""
    trainer.create_optimizer()
    scheduler = trainer.create_scheduler(num_steps)
    values = []
    for _ in range(num_steps):
        values.append(scheduler.get_last_lr()[0] / trainer.args.learning_rate)
        trainer.optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(5, 1), (100, 10), (300, 20), (1000, 50), (30_000, 1500), (300_000, 2000)]
)
def test_the_warm_up_is_a_share_of_the_run_within_bounds(tmp_path: Path, num_steps: int, expected: int):
    args = HfDetrTrainingArguments(str(tmp_path))
    assert args.get_warmup_steps(num_steps) == expected


def test_a_warm_up_in_steps_is_taken_as_it_is(tmp_path: Path):
    assert HfDetrTrainingArguments(str(tmp_path), warmup_steps=7).get_warmup_steps(1000) == 7
    assert HfDetrTrainingArguments(str(tmp_path), warmup_steps=0).get_warmup_steps(1000) == 0


def test_the_rate_rises_stays_and_falls_as_a_cosine(build_trainer):
    values = rates(build_trainer({"warmup_steps": 0.1, "flat_share": 0.5}), 100)
    assert values[:10] == pytest.approx([step / 10 for step in range(10)])
    assert values[10:60] == [1.0] * 50
    assert values[80] == pytest.approx(0.5)
    assert values[60:] == sorted(values[60:], reverse=True)
    assert 0 < values[-1] < 0.01


def test_the_plain_cosine_begins_to_fall_after_the_warm_up(build_trainer):
    values = rates(build_trainer({"warmup_steps": 0.1}), 100)
    assert values[10] == 1.0
    assert values[11] < 1.0
    assert values[55] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flat_share": 1.0}, "flat_share must be at least 0 and below 1, got 1.0"),
        ({"flat_share": 0.5, "lr_scheduler_type": "linear"}, "flat_share is for the cosine schedule, not for linear"),
        ({"ema_share": 0.0}, "ema_share must be above 0"),
        ({"warmup_bounds": (10, 5)}, "the smaller one first, got .10, 5."),
    ],
)
def test_impossible_arguments_are_refused(tmp_path: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        HfDetrTrainingArguments(str(tmp_path), **arguments)


def test_biases_and_norms_can_be_kept_from_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 1.0, 0.1, {"2.": 0.5}, decay_biases_and_norms=False)
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found == {
        "0.weight": (1.0, 0.1),
        "0.bias": (1.0, 0.0),
        "1.weight": (1.0, 0.0),
        "1.bias": (1.0, 0.0),
        "2.weight": (0.5, 0.1),
        "2.bias": (0.5, 0.0),
    }
    assert groups[0]["lr"] == 1.0
    [*published] = parameter_groups(model, 1.0, 0.1, {"2.": 0.5})
    assert {group["weight_decay"] for group in published} == {0.1}


def test_the_fused_optimizer_steps_as_the_plain_one(build_trainer):
    weights = []
    for optim in ("adamw_torch_fused", "adamw_torch"):
        trainer = build_trainer({"max_steps": 3, "optim": optim, "learning_rate": 1e-3})
        trainer.train()
        assert trainer.optimizer.param_groups[0]["fused"] is (True if optim == "adamw_torch_fused" else None)
        weights.append(dict(trainer.model.named_parameters()))
    start = dict(build_trainer().model.named_parameters())
    assert any((weights[0][name] - start[name]).abs().max() > 1e-4 for name in start)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=2e-6, rtol=1e-5, msg=name)
