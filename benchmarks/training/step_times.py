"""How long a training step of each model takes, measured in turns while nothing else runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from timed_training import machine_and_versions

from hf_detr.files import read_json


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the time of a step depends on, besides the model.

    Attributes:
        benchmark: the benchmark that asks for it.
        data: what the data set is called in reports.
        threads: of PyTorch.
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
"""`conditions`, `machine`, `versions`, and `models`: name -> `step_seconds`, `steps_per_epoch`, the `rounds`."""


def combine(
    conditions: Conditions, known: StepTimes | None, rounds: Sequence[Mapping[str, tuple[float, int]]]
) -> StepTimes:
    """Add the step times of a session to those known.

    The machine of another session may be faster or slower: what is timed again keeps its time and is the yardstick
    that the others are brought to its speed with.

    Args:
        conditions: of the steps.
        known: the times of earlier sessions, if any.
        rounds: name -> (seconds of a step, steps of an epoch), of each round.

    Raises:
        ValueError: the known times are of other conditions, or none of their models was timed again.
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
    """Check that step times are those of the conditions.

    Raises:
        ValueError: they are not.
    """
    found = known["conditions"]
    if found != asdict(conditions):
        raise ValueError(f"the step times in {conditions.file_name} are those of {found}: move the file away")


def check_yardsticks(conditions: Conditions, known: StepTimes | None, models: Iterable[str]) -> list[str]:
    """Return which models of a session have known times, to compare the speed of the machine by.

    Raises:
        ValueError: none has, or the known times are of other conditions.
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
