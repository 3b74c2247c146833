import json
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from hf_detr.files import write_json


@pytest.fixture
def timed_training(script):
    return script("timed_training")


class FakeTraining:
    """What a Trainer does, in the order in which it does it."""

    def __init__(self, callback, epochs, steps_per_epoch, step=0.0):
        self.callback, self.step = callback, step
        self.args = SimpleNamespace(per_device_train_batch_size=2, learning_rate=0.1, num_train_epochs=epochs)
        self.state = SimpleNamespace(global_step=0, max_steps=round(epochs * steps_per_epoch), epoch=0.0)

    def call(self, event, **values):
        getattr(self.callback, event)(self.args, self.state, self.control, **values)

    def run(self, evaluate_at=()):
        self.control = TrainerControl()
        self.call("on_train_begin", model=torch.nn.Linear(2, 1))
        while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            time.sleep(self.step)
            self.state.global_step += 1
            self.control.should_evaluate = self.control.should_save = self.state.global_step in evaluate_at
            self.call("on_step_end")
            if self.control.should_evaluate:
                self.call("on_evaluate", metrics={"eval_AP": 0.5, "eval_loss": 1.0})
        self.state.epoch = self.args.num_train_epochs * self.state.global_step / self.state.max_steps
        self.call("on_train_end")
        self.call("on_evaluate", metrics={"eval_AP": 0.5})


def test_steps_are_timed_without_evaluations(timed_training):
    def train(epochs, callbacks):
        FakeTraining(callbacks[0], epochs, 7, step=0.02).run(evaluate_at=range(100))

    step_seconds, steps_per_epoch = timed_training.time_steps(0.2, train)
    assert 0.02 <= step_seconds < 0.04
    assert steps_per_epoch == 7


def test_as_many_steps_are_trained_as_fit_into_the_budget(timed_training):
    asked = []

    def train(epochs, callbacks):
        asked.append(epochs)
        FakeTraining(callbacks[0], epochs, 7).run(evaluate_at=(7, 14))
        return dict.fromkeys(timed_training.SUMMARY_NAMES, 0.25) | {"per_class": {}}

    record = timed_training.train_for(60.0, 2.0, 7, train)
    assert asked == [30 / 7]
    assert (record["steps"], record["epochs"], record["seconds"], record["parameters"]) == (30, 4.29, 60.0, 3)
    assert [(point["step"], point["seconds"]) for point in record["curve"]] == [(7, 14.0), (14, 28.0), (30, 60.0)]
    assert record["curve"][0]["AP"] == 0.5
    assert "eval_loss" not in record["curve"][0]
    assert record["metrics"]["AP"] == 0.25
    timed_training.train_for(1.0, 2.0, 7, train)
    assert asked == [30 / 7, 1 / 7]  # never nothing


@pytest.fixture
def conditions(script):
    return script("step_times").Conditions(benchmark="small_data", data="cells", threads=2, image_size=256)


def test_step_times_are_medians_of_rounds_in_turns(script, conditions, tmp_path):
    steps = script("step_times")
    rounds = [
        {"ours": (1.0, 10), "detr": (2.0, 5)},
        {"ours": (3.0, 10), "detr": (2.2, 5)},
        {"ours": (1.2, 10), "detr": (9.0, 5)},
    ]
    write_json(tmp_path / conditions.file_name, steps.combine(conditions, None, rounds))
    times = steps.read_step_times(tmp_path, conditions)
    assert {name: (model["step_seconds"], model["steps_per_epoch"]) for name, model in times["models"].items()} == {
        "ours": (1.2, 10), "detr": (2.2, 5),
    }  # fmt: skip
    assert times["models"]["detr"]["rounds"] == [2.0, 2.2, 9.0]
    json.dumps(times)


def test_what_was_timed_before_is_the_yardstick_for_a_machine_of_another_speed(script, conditions):
    steps = script("step_times")
    known = steps.combine(conditions, None, [{"detr": (2.0, 5)}])
    times = steps.combine(conditions, known, [{"ours": (3.0, 10), "detr": (4.0, 5)}])  # half as fast as it was
    assert times["models"]["ours"]["step_seconds"] == 1.5
    assert times["models"]["detr"] == known["models"]["detr"]
    with pytest.raises(ValueError, match="time at least one of detr along"):
        steps.combine(conditions, known, [{"ours": (3.0, 10)}])


def test_step_times_of_other_conditions_are_refused(script, conditions):
    steps = script("step_times")
    known = steps.combine(conditions, None, [{"detr": (2.0, 5)}])
    other = steps.Conditions(**{**known["conditions"], "threads": 1})
    with pytest.raises(ValueError, match=r"steps_small_data_cells\.json were measured under .*'threads': 2"):
        steps.combine(other, known, [{"detr": (2.0, 5)}])


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "expected a file of step times")])
def test_a_broken_file_of_step_times_is_named(script, conditions, tmp_path, text: str, message: str):
    (tmp_path / conditions.file_name).write_text(text)
    with pytest.raises(ValueError, match=rf"steps_small_data_cells\.json:? {message}"):
        script("step_times").read_step_times(tmp_path, conditions)
