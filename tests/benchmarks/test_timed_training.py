import math
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl


@pytest.fixture
def timed_training(script):
    return script("timed_training")


def test_the_clock_counts_between_resume_and_pause(timed_training):
    clock = timed_training.Clock()
    time.sleep(0.05)
    assert clock.seconds() == 0
    clock.resume()
    time.sleep(0.05)
    clock.resume()  # already counting
    clock.pause()
    counted = clock.seconds()
    time.sleep(0.05)
    clock.pause()
    assert clock.seconds() == counted
    assert 0.05 <= counted < 0.5


def test_cpu_time_leaves_out_waiting(timed_training):
    clock = timed_training.Clock(cpu_time=True)
    clock.resume()
    time.sleep(0.2)
    assert clock.seconds() < 0.1


class FakeTraining:
    """What a Trainer does, in the order in which it does it."""

    def __init__(self, callback, max_steps, save_strategy="no"):
        self.callback, self.max_steps = callback, max_steps
        self.args = SimpleNamespace(
            per_device_train_batch_size=2, learning_rate=0.1, num_train_epochs=2, save_strategy=save_strategy
        )
        self.state = SimpleNamespace(global_step=0, max_steps=max_steps, epoch=0.0)

    def call(self, event, **values):
        getattr(self.callback, event)(self.args, self.state, self.control, **values)

    def run(self, step, evaluate_at=(), save_at=(), slow=0.0):
        self.control = TrainerControl()
        self.call("on_train_begin", model=torch.nn.Linear(2, 1))
        while self.state.global_step < self.max_steps and not self.control.should_training_stop:
            time.sleep(step)
            self.state.global_step += 1
            self.control.should_training_stop = self.state.global_step == self.max_steps
            self.control.should_evaluate = self.state.global_step in evaluate_at
            self.control.should_save = self.state.global_step in save_at
            self.call("on_step_end")
            if self.control.should_evaluate:
                time.sleep(slow)
                self.call("on_evaluate", metrics={"eval_AP": 0.5, "eval_loss": 1.0})
            if self.control.should_save:
                time.sleep(slow)
                self.call("on_save")
        self.state.epoch = self.state.global_step / self.max_steps
        time.sleep(slow)  # loads the best checkpoint
        self.call("on_train_end")


def test_evaluations_and_checkpoints_are_not_counted(timed_training):
    budget = timed_training.TrainingBudget(timed_training.Clock(), seconds=10)
    FakeTraining(budget, 4).run(0.01, evaluate_at=(2, 4), save_at=(2, 3), slow=0.3)
    assert 0.04 <= budget.clock.seconds() < 0.3
    assert [point["step"] for point in budget.curve] == [2, 4]
    assert budget.curve[0]["AP"] == 0.5
    assert "eval_loss" not in budget.curve[0]
    assert budget.facts["parameters"] == 3
    assert not budget.facts["is_cut"]


def test_a_training_is_cut_when_its_time_is_over(timed_training):
    budget = timed_training.TrainingBudget(timed_training.Clock(), seconds=0.1)
    FakeTraining(budget, 1000, save_strategy="steps").run(0.02)
    assert budget.facts["is_cut"]
    assert 1 <= budget.facts["steps"] <= 5
    assert budget.curve[-1]["step"] == budget.facts["steps"]  # what it has learned is evaluated


def test_the_plan_fills_the_budget(timed_training):
    asked = []

    def train(epochs, callbacks):
        [callback] = callbacks
        asked.append(epochs)
        if isinstance(callback, timed_training.StepTimer):
            training = FakeTraining(callback, 1000)
            training.args.num_train_epochs, training.state.max_steps = 100, 1000
            callback.on_train_begin = lambda *args, **kwargs: None
            callback.on_train_end = lambda *args, **kwargs: None
            training.run(0.01)
        else:
            FakeTraining(callback, 3).run(0.01)
        return dict.fromkeys(timed_training.SUMMARY_NAMES, 0.25) | {"per_class": {}}

    record = timed_training.train_for(5.0, False, train)
    step = record["calibrated_step_seconds"]
    assert asked == [timed_training.UNLIMITED_EPOCHS, int(timed_training.AIM * 5.0 / (step * 10))] or math.isclose(
        asked[1], timed_training.AIM * 5.0 / (step * 10), abs_tol=1.0
    )
    assert record["metrics"]["AP"] == 0.25
    assert record["steps"] == 3
