"""The demonstration `hf-detr demo`: it trains for some minutes on this machine and shows the result."""

import math
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line import option
from .training.options import RunOptions

if TYPE_CHECKING:
    from .training.trainer import HfDetrTrainer

WARM_UP_STEPS, LEAST_TIMED_STEPS, TIMED_SECONDS = 5, 5, 10.0
"""Steps are timed for this many seconds, and at least this many steps. Some steps run before, as first steps are
slow."""
PICTURES_SECONDS = 5.0
"""The time kept for reloading the model and drawing what it sees."""
LEAST_STEPS = 20
"""The demonstration trains at least this many steps, however slow the machine is."""
DATA, IMAGE_SIZE = "synthetic", 128
THRESHOLD = 0.3
"""The lowest score of the detections that are drawn."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of `hf-detr demo`."""

    minutes: float = option(
        "How long the demonstration takes. The training is as long as the machine allows.", default=5.0, min=0.1
    )
    output: Path = option("The model folder to write. What it holds is replaced.", default=Path("demo-output"))


@dataclass(frozen=True)
class Pace:
    """How fast a machine trains: the seconds of an optimizer step and of an evaluation with its pictures."""

    step: float
    evaluation: float


def plan_run(
    options: DemoOptions, clock: Callable[[], float] = time.perf_counter, began: float | None = None
) -> tuple[RunOptions, str]:
    """Measure the pace of this machine; return the run that takes the time asked for, and a sentence about it.

    Args:
        options: the options of the demonstration.
        clock: returns seconds.
        began: the time on the clock when the demonstration began; by default now.
    """
    began = clock() if began is None else began
    run = RunOptions(data=DATA, output=options.output, image_size=IMAGE_SIZE, overwrite=True, command="hf-detr demo")
    pace = measure_pace(run, clock)
    left = 60 * options.minutes - (clock() - began)
    steps = affordable_steps(pace, left - PICTURES_SECONDS)
    minutes = (seconds_of(steps, pace) + PICTURES_SECONDS) / 60
    told = f"A step takes {pace.step:.2f} s: {steps} steps and their evaluations take about {minutes:.1f} minutes"
    if steps == LEAST_STEPS and seconds_of(steps, pace) > left - PICTURES_SECONDS:
        told += f", longer than the {options.minutes:g} asked for, because the demo trains at least {steps} steps"
    return replace(run, steps=steps), told


def affordable_steps(pace: Pace, seconds: float) -> int:
    """Return how many steps fit into some seconds together with the evaluations that a run of so many steps makes."""
    choices = range(LEAST_STEPS, max(LEAST_STEPS, int(seconds / pace.step)) + 1)
    fitting = bisect_right(choices, seconds, key=lambda steps: seconds_of(steps, pace))
    return choices[max(0, fitting - 1)]


def seconds_of(steps: int, pace: Pace) -> float:
    """Return how long a run of so many steps takes with its evaluations."""
    return steps * pace.step + evaluations(steps) * pace.evaluation


def evaluations(steps: int) -> int:
    """Return how often a run of so many steps evaluates, the best model at the end included."""
    from .training.recipe import rhythm

    _, between = rhythm(None, 1, steps, 1)
    return math.ceil(steps / between) + 1


def measure_pace(run: RunOptions, clock: Callable[[], float]) -> Pace:
    """Time the steps and one evaluation of a run in a folder that is thrown away."""
    from .training.run import prepare_trainer

    with tempfile.TemporaryDirectory() as scratch:
        _, trainer = prepare_trainer(replace(run, output=Path(scratch) / "model", epochs=1000, augmentation="flip"))
        step = timed_step(trainer, clock)
        start = clock()
        trainer.evaluate()
        return Pace(step, clock() - start)


def timed_step(trainer: "HfDetrTrainer", clock: Callable[[], float]) -> float:
    """Train for a moment without a progress bar; return the mean seconds of a step."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    from .training.callbacks import LossProgress

    ends: list[float] = []

    class Timer(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            ends.append(clock())
            timed = len(ends) - WARM_UP_STEPS
            if timed >= LEAST_TIMED_STEPS and ends[-1] - ends[WARM_UP_STEPS - 1] >= TIMED_SECONDS:
                control.should_training_stop = True

    trainer.remove_callback(LossProgress)
    trainer.add_callback(Timer)
    trainer.train()
    return (ends[-1] - ends[WARM_UP_STEPS - 1]) / (len(ends) - WARM_UP_STEPS)


def draw_with_pipeline(folder: Path) -> Path:
    """Run the saved model on validation images through `transformers.pipeline`; return the sheet of pictures."""
    from transformers import pipeline

    from .data import category_names, make_synthetic_dataset
    from .data.collate import detection_target
    from .data.drawing import draw_detections, grid, side_by_side
    from .data.loading import SYNTHETIC_VALIDATION_FIRST_ID

    data = make_synthetic_dataset(6, first_image_id=SYNTHETIC_VALIDATION_FIRST_ID)
    names = category_names(data)
    detector = pipeline("object-detection", model=str(folder))
    sheets = []
    for row in data:
        target = detection_target(row, row["image"])
        found = detector(row["image"], threshold=THRESHOLD)
        boxes = [[detection["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for detection in found]
        labels = [names.index(detection["label"]) for detection in found]
        scores = [detection["score"] for detection in found]
        left = draw_detections(row["image"], target["boxes"], target["labels"], names)
        right = draw_detections(row["image"], boxes, labels, names, scores)
        sheets.append(side_by_side(left, right, ("ground truth", "detections")))
    path = folder / "pictures" / "pipeline.png"
    grid(sheets, columns=2).save(path)
    return path
