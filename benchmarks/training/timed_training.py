"""Trains for a given time on a machine that is never quiet for long: steps are timed first, then counted.

The time of a step is measured while nothing else runs, for all models in turns (`step_times.py`). A run then trains
for as many steps as fit into the budget at that speed, so its outcome does not depend on what else the machine does
meanwhile, and repeats exactly. Only training counts: loading and augmenting images, forward, backward, optimizer.
Building the model, compiling, evaluating and saving do not.
"""

import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.machine import hardware_line

WARM_UP_STEPS = 2
"""The steps before the clock starts, in which kernels are compiled and memory is allocated."""
LEAST_TIMED_STEPS = 3
UNLIMITED_EPOCHS = 1000
PACKAGES = ("torch", "torchvision", "transformers", "timm")

Train = Callable[[float, Sequence[TrainerCallback]], dict[str, Any]]
"""A function that trains for a number of epochs, whole or not, with callbacks, and returns the result of `CocoMetrics`
for the final model."""


class StepsAreTimedError(Exception):
    """Ends a training whose steps have been timed, before its evaluation and saving."""


class StepTimer(TrainerCallback):
    """Ends a training by an exception as soon as its steps have been timed; it is never evaluated.

    Args:
        seconds: the seconds for which steps are timed.

    Attributes:
        step_seconds: the mean time of a step.
        steps_per_epoch: the number of steps in a pass over the data.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.start = math.nan
        self.step_seconds = math.nan
        self.steps_per_epoch = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Time the step."""
        control.should_evaluate = control.should_save = False
        timed = state.global_step - WARM_UP_STEPS
        if timed < 0:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if timed == 0:
            self.start = now
        elif timed >= LEAST_TIMED_STEPS and now - self.start >= self.seconds:
            self.step_seconds = (now - self.start) / timed
            self.steps_per_epoch = round(state.max_steps / args.num_train_epochs)
            raise StepsAreTimedError


class LearningCurve(TrainerCallback):
    """Notes the facts about a training and the metrics of its evaluations.

    Args:
        step_seconds: the time of a step.

    Attributes:
        points: for each evaluation the `seconds` of training before it, `step` and COCO metrics.
        facts: parameters, batch size, learning rate, steps and epochs.
    """

    def __init__(self, step_seconds: float):
        self.step_seconds = step_seconds
        self.points: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Note the facts about the training."""
        self.facts = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "batch_size": args.per_device_train_batch_size,
            "learning_rate": args.learning_rate,
        }

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Note the metrics. The last step may be evaluated more than once."""
        if self.points and self.points[-1]["step"] == state.global_step:
            return
        names = {f"eval_{name}": name for name in SUMMARY_NAMES}
        values = {names[name]: value for name, value in metrics.items() if name in names}
        seconds = round(state.global_step * self.step_seconds, 2)
        self.points.append({"seconds": seconds, "step": state.global_step, **values})

    def on_train_end(self, args, state, control, **kwargs):
        """Note how long the training was."""
        self.facts |= {"steps": state.global_step, "epochs": round(state.epoch, 2)}


def time_steps(seconds: float, train: Train) -> tuple[float, int]:
    """Return the seconds of a step and the steps of an epoch, from a model that is thrown away."""
    timer = StepTimer(seconds)
    with suppress(StepsAreTimedError):
        train(UNLIMITED_EPOCHS, [timer])
    return timer.step_seconds, timer.steps_per_epoch


def train_for(seconds: float, step_seconds: float, steps_per_epoch: int, train: Train) -> dict[str, Any]:
    """Train for as many steps as fit into `seconds`; return the record of the training."""
    curve = LearningCurve(step_seconds)
    metrics = train(max(1, int(seconds / step_seconds)) / steps_per_epoch, [curve])
    return {
        "seconds": round(curve.facts["steps"] * step_seconds, 2),
        "step_seconds": step_seconds,
        **curve.facts,
        "metrics": {name: metrics[name] for name in SUMMARY_NAMES},
        "per_class": metrics["per_class"],
        "curve": curve.points,
        "peak_memory_mib": peak_memory_mib(),
        **machine_and_versions(),
    }


def machine_and_versions() -> dict[str, Any]:
    """Return the machine and the versions with which a result was measured."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {"machine": hardware_line(), "versions": versions}


def peak_memory_mib() -> int:
    """Return the most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))  # bytes there, kibibytes elsewhere
