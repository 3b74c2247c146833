"""Keeps how long a training step of each model takes, measured in turns while nothing else runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from timed_training import machine_and_versions

from hf_detr.files import read_json


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions on which the time of a step depends, besides the model.

    Attributes:
        benchmark: the benchmark that asks for it.
        data: the name of the data set in reports.
        threads: the threads of PyTorch.
        image_size: the shortest edge of the images in pixels.
    """

    benchmark: str
    data: str
    threads: int
    image_size: int

    @property
    def file_name(self) -> str:
        """The name of the file of step times."""
        return f"steps_{self.benchmark}_{self.data}.json"


StepTimes = dict[str, Any]
"""A dictionary of `conditions`, `machine`, `versions`, and `models`, by name: `step_seconds`, `steps_per_epoch`,
`rounds`."""


def combine(
    conditions: Conditions, known: StepTimes | None, rounds: Sequence[Mapping[str, tuple[float, int]]]
) -> StepTimes:
    """Add the step times of a session to those known.

    The machine of another session may be faster or slower. A model that is timed again keeps its time, and the ratio
    of its two times brings the other times to the same speed.

    Args:
        conditions: the conditions of the steps.
        known: the times of earlier sessions, if any.
        rounds: for each round, by the name of the model, (seconds of a step, steps of an epoch).

    Raises:
        ValueError: the known times belong to other conditions, or none of their models was timed again.
    """
    measured = {name: median(times[name][0] for times in rounds) for name in rounds[0]}
    per_epoch = {name: steps for name, (_, steps) in rounds[0].items()}
    yardsticks = check_yardsticks(conditions, known, measured)
    models = {} if known is None else dict(known["models"])
    scale = geometric_mean(models[name]["step_seconds"] / measured[name] for name in yardsticks) if yardsticks else 1.0
    for name in measured:
        models.setdefault(
            name,
            {
                "step_seconds": round(measured[name] * scale, 4),
                "steps_per_epoch": per_epoch[name],
                "rounds": [round(times[name][0], 4) for times in rounds],
                "speed_of_machine": round(scale, 4),
            },
        )
    about = machine_and_versions() if known is None else {name: known[name] for name in ("machine", "versions")}
    return {"conditions": asdict(conditions), **about, "models": models}


def check_conditions(conditions: Conditions, known: StepTimes) -> None:
    """Check that step times were measured under the given conditions.

    Raises:
        ValueError: they were measured under others.
    """
    found = known["conditions"]
    if found != asdict(conditions):
        raise ValueError(f"the step times in {conditions.file_name} were measured under {found}: move the file away")


def check_yardsticks(conditions: Conditions, known: StepTimes | None, models: Iterable[str]) -> list[str]:
    """Return the models of a session that have known times, by which the speed of the machine is compared.

    Raises:
        ValueError: no model has, or the known times belong to other conditions.
    """
    if known is None:
        return []
    check_conditions(conditions, known)
    yardsticks = [name for name in models if name in known["models"]]
    if not yardsticks:
        names = ", ".join(known["models"])
        raise ValueError(f"time at least one of {names} along, to compare the speed of the machine")
    return yardsticks


def read_step_times(folder: Path, conditions: Conditions) -> StepTimes | None:
    """Return the step times in a folder of results, if there are any.

    Raises:
        ValueError: the file holds something else.
    """
    path = folder / conditions.file_name
    return read_json(path, ("conditions", "models"), "a file of step times") if path.exists() else None
