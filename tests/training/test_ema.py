"""The moving average of the weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from hf_detr.data import DetectionCollator, DetrAugmentation
from hf_detr.training.ema import WeightAverage, decay_at


def trained(trainer):
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


class RecordWeights(TrainerCallback):
    """Keeps the weights that the optimizer works on, at the start and after each step."""

    def __init__(self):
        self.history = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.history.append({name: value.clone() for name, value in model.state_dict().items()})

    on_step_end = on_train_begin


@pytest.mark.parametrize("num_steps", [300, 300_000])
def test_the_average_looks_back_over_a_share_of_the_run_whatever_its_length(num_steps):
    decays = [decay_at(step, num_steps, share=0.02) for step in range(1, num_steps + 1)]
    assert decays == sorted(decays)
    assert 1 / (1 - decays[-1]) == pytest.approx(0.02 * num_steps)
    start = torch.tensor(decays, dtype=torch.float64).log().sum().exp()
    assert start < 1e-6, "the random start is still in the average"


def test_the_average_is_that_of_the_formula():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    average = WeightAverage(model, 0.1, lambda: False)
    average.start()
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(3):
        model(torch.randn(4, 2))
        with torch.no_grad():
            model[0].weight += step
        average.update(0.75)
        for name, value in model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value.double()
    live = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied():
        state = model.state_dict()
        for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
            torch.testing.assert_close(state[name].double(), expected[name], atol=1e-6, rtol=0, msg=name)
        assert state["1.num_batches_tracked"] == 3
        with average.applied():
            assert torch.equal(model[0].weight, state["0.weight"])
    assert_same(live, model.state_dict())


def test_the_model_holds_the_average_after_training(build_trainer):
    record = RecordWeights()
    final = trained(build_trainer({"max_steps": 4, "ema_share": 0.5}, callbacks=[record]))
    average = record.history[0]
    for step, weights in enumerate(record.history[1:], start=1):
        decay = decay_at(step, 4, 0.5)
        average = {name: torch.lerp(average[name], value, 1 - decay) for name, value in weights.items()}
    for name, value in final.items():
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=1e-5, msg=name)
    assert any(not torch.equal(final[name], record.history[-1][name]) for name in final)


def test_the_average_does_not_change_the_training(build_trainer):
    records = [RecordWeights(), RecordWeights()]
    for ema, record in zip((True, False), records, strict=True):
        arguments = {"max_steps": 4, "ema": ema, "eval_strategy": "steps", "eval_steps": 2}
        final = trained(build_trainer(arguments, callbacks=[record]))
    for first, second in zip(records[0].history, records[1].history, strict=True):
        assert_same(first, second)
    assert_same(final, records[1].history[-1])


def test_the_average_is_evaluated_and_saved(build_trainer, tmp_path: Path):
    arguments = {"max_steps": 4, "ema_share": 0.5, "save_strategy": "steps", "save_steps": 2}
    record = RecordWeights()
    trainer = build_trainer({**arguments, "eval_strategy": "steps", "eval_steps": 2}, callbacks=[record])
    final = trained(trainer)
    saved = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    assert_same(saved, {name: final[name] for name in saved})
    working = load_file(tmp_path / "run" / "checkpoint-4" / "training_weights.safetensors")
    assert_same(working, {name: record.history[-1][name] for name in working})
    logged = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged[-1], rel=1e-6)


def test_the_best_average_is_loaded_at_the_end(build_trainer, tmp_path: Path):
    arguments = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": True,  # the first is the worst, so another than the last is loaded
    }
    trainer = build_trainer(arguments)
    final = trained(trainer)
    assert trainer.state.best_global_step < 4
    saved = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert_same(saved, {name: final[name] for name in saved})


def test_skipped_steps_do_not_move_the_average(build_trainer, image_processor):
    class Nan(DetectionCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            batch["pixel_values"].fill_(float("nan"))
            return batch

    record = RecordWeights()
    final = trained(build_trainer({"max_steps": 2}, data_collator=Nan(image_processor), callbacks=[record]))
    assert_same(final, {**final, **{n: v for n, v in record.history[0].items() if "running" not in n}})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_average_continues_bit_by_bit(
    build_trainer, build_model, image_processor, tmp_path: Path, accumulation
):
    def trainer():
        return build_trainer(
            {
                "num_train_epochs": 3,
                "save_strategy": "steps",
                "save_steps": 3,
                "gradient_accumulation_steps": accumulation,
                "ema_share": 0.5,
            },
            model=build_model(dropout=0.1),
            data_collator=DetectionCollator(image_processor, DetrAugmentation(64, 96)),
        )

    whole = trained(trainer())
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert_same(whole, resumed.model.state_dict())


def test_a_checkpoint_is_not_resumed_with_another_choice(build_trainer, tmp_path: Path):
    build_trainer({"max_steps": 1, "save_strategy": "steps", "save_steps": 1}).train()
    with pytest.raises(ValueError, match="is of a run with ema=True: resume it with the same"):
        build_trainer({"max_steps": 2, "ema": False}).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1")
        )
