"""Training for a given time: what the clock counts, how many epochs fit, and what a run leaves behind.

Only training counts: loading and augmenting images, forward, backward, optimizer. Building the model, compiling,
evaluating and saving do not.
"""

import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.hub.evidence import hardware_line

WARM_UP_STEPS = 3
"""Steps of the throw-away model before its steps are timed: kernels are compiled and memory is allocated in them."""
LEAST_TIMED_STEPS = 5
CALIBRATION_SHARE = 0.03
"""Steps are timed for this share of the budget."""
AIM = 0.97
"""Epochs are planned for this share of the budget: a run that is cut off never reaches its low learning rates."""
UNLIMITED_EPOCHS = 1000
PACKAGES = ("torch", "torchvision", "transformers", "timm")

Train = Callable[[int, Sequence[TrainerCallback]], dict[str, Any]]
"""Trains for a number of epochs with callbacks; returns the result of `CocoMetrics` for the model that comes out."""


class Clock:
    """Seconds between `resume` and `pause`; starts paused.

    Args:
        cpu_time: count the CPU seconds of all threads of this process instead of the wall-clock.
    """

    def __init__(self, cpu_time: bool = False):
        self.read = time.process_time if cpu_time else time.perf_counter
        self.counted = 0.0
        self.since: float | None = None

    def resume(self) -> None:
        """Count from now on."""
        if self.since is None:
            _wait_for_device()
            self.since = self.read()

    def pause(self) -> None:
        """Stop counting."""
        self.counted = self.seconds()
        self.since = None

    def seconds(self) -> float:
        """Return what was counted so far."""
        if self.since is None:
            return self.counted
        _wait_for_device()
        return self.counted + self.read() - self.since


class StepTimer(TrainerCallback):
    """Stops a training as soon as its steps have been timed; it is not evaluated before.

    Args:
        clock: a fresh one.
        seconds: how long to time steps.
    """

    def __init__(self, clock: Clock, seconds: float):
        self.clock = clock
        self.seconds = seconds
        self.step_seconds = math.nan
        self.steps_per_epoch = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Time the step."""
        control.should_evaluate = control.should_save = False
        timed = state.global_step - WARM_UP_STEPS
        if timed == 0:
            self.clock.resume()
        elif timed >= LEAST_TIMED_STEPS and self.clock.seconds() >= self.seconds:
            self.clock.pause()
            self.step_seconds = self.clock.seconds() / timed
            self.steps_per_epoch = round(state.max_steps / args.num_train_epochs)
            control.should_training_stop = True


class TrainingBudget(TrainerCallback):
    """Times a training without its evaluations and checkpoints, and ends it when its time is used up.

    Add it last: what other callbacks do at an evaluation is not counted either.

    Args:
        clock: a fresh one.
        seconds: the budget.

    Attributes:
        curve: for each evaluation the `seconds`, `step` and COCO metrics.
        facts: what is known of the training: parameters, batch size, learning rate, planned and done steps.
    """

    def __init__(self, clock: Clock, seconds: float):
        self.clock = clock
        self.seconds = seconds
        self.curve: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {}
        self.is_training = False

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Start the clock."""
        self.facts = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "batch_size": args.per_device_train_batch_size,
            "learning_rate": args.learning_rate,
            "planned_steps": state.max_steps,
            "planned_epochs": args.num_train_epochs,
        }
        self.is_training = True
        self.clock.resume()

    def on_step_end(self, args, state, control, **kwargs):
        """End the training if its time is over, with an evaluation."""
        if self.clock.seconds() >= self.seconds and not control.should_training_stop:
            control.should_training_stop = control.should_evaluate = True
            control.should_save = args.save_strategy != "no"
        self._pause_for(control)

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop the clock if there is something to do other than training."""
        self._pause_for(control)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Note the metrics and go on, unless a checkpoint is still to be written."""
        if not self.is_training:
            return
        names = {f"eval_{name}": name for name in SUMMARY_NAMES}
        values = {names[name]: value for name, value in metrics.items() if name in names}
        self.curve.append({"seconds": round(self.clock.seconds(), 2), "step": state.global_step, **values})
        if not control.should_save:
            self._go_on(control)

    def on_save(self, args, state, control, **kwargs):
        """Go on."""
        self._go_on(control)

    def on_train_end(self, args, state, control, **kwargs):
        """Stop the clock for good."""
        self.clock.pause()
        self.is_training = False
        steps = state.global_step
        self.facts |= {"steps": steps, "epochs": round(state.epoch, 2), "is_cut": steps < self.facts["planned_steps"]}

    def _go_on(self, control: TrainerControl) -> None:
        if not control.should_training_stop:  # else only the best checkpoint is still to be loaded
            self.clock.resume()

    def _pause_for(self, control: TrainerControl) -> None:
        if control.should_evaluate or control.should_save or control.should_training_stop:
            self.clock.pause()


def train_for(seconds: float, cpu_time: bool, train: Train) -> dict[str, Any]:
    """Train for `seconds` with as many whole epochs as fit; return the record of the run.

    The steps are timed first, on a model that is thrown away.
    """
    timer = StepTimer(Clock(cpu_time), CALIBRATION_SHARE * seconds)
    train(UNLIMITED_EPOCHS, [timer])
    epochs = max(1, int(AIM * seconds / (timer.step_seconds * timer.steps_per_epoch)))
    budget = TrainingBudget(Clock(cpu_time), seconds)
    metrics = train(epochs, [budget])
    used = budget.clock.seconds()
    return {
        "seconds": round(used, 2),
        "calibrated_step_seconds": round(timer.step_seconds, 4),
        **budget.facts,
        "metrics": {name: metrics[name] for name in SUMMARY_NAMES},
        "per_class": metrics["per_class"],
        "curve": budget.curve,
        "peak_memory_mib": peak_memory_mib(),
        "machine": hardware_line(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def peak_memory_mib() -> int:
    """Return the most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))  # bytes there, kibibytes elsewhere


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
