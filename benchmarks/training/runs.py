"""Makes the runs of a benchmark, each in a process of its own, from its settings to the JSON file that it leaves."""

import multiprocessing
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from step_times import (
    Conditions,
    StepTimes,
    check_conditions,
    check_yardsticks,
    combine,
    read_step_times,
)
from timed_training import Train, time_steps, train_for

from hf_detr.data import data_fingerprint, load_detection_data
from hf_detr.files import read_json, write_json
from hf_detr.machine import cores

RESULTS = Path(__file__).resolve().parents[1] / "results"
CORES = cores()

Record = dict[str, Any]

SECONDS_TIMED = 10.0
"""The seconds for which the steps of a model are timed in each round."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that decide the outcome of a run.

    Attributes:
        benchmark: the benchmark that it belongs to.
        model: the model that is trained, by its name in the benchmark.
        data: the name of the data set in reports.
        seed: the number with which everything random is drawn.
        budget_seconds: the seconds of training, on the machine and with the threads of the timing.
        threads: the threads with which the steps were timed.
        image_size: the shortest edge of the images in pixels.
    """

    benchmark: str
    model: str
    data: str
    seed: int
    budget_seconds: float
    threads: int
    image_size: int

    @property
    def file_name(self) -> str:
        """The name of the record."""
        return f"{self.benchmark}_{self.data}_{self.model}_seed{self.seed}.json"


MakeTrain = Callable[[str, str, int, int], Train]
"""A function of the model's name, the source of the data, the image size and the seed that makes the training."""


def time_all(
    models: Sequence[str], source: str, make_train: MakeTrain, results: Path, rounds: int, conditions: Conditions
) -> StepTimes:
    """Time the steps of models in turns, each in a process of its own, and write them.

    Raises:
        ValueError: the data cannot be used, or there are times of other conditions.
    """
    load_detection_data(source)
    known = read_step_times(results, conditions)
    check_yardsticks(conditions, known, models)  # before minutes are spent
    measured = []
    for number in range(rounds):
        measured.append({})
        for model in models:
            arguments = (make_train, model, source, conditions.image_size, conditions.threads)
            with one_process(conditions.threads) as pool:
                measured[-1][model] = pool.submit(time_one, *arguments).result()
            typer.echo(f"round {number + 1}, {model}: {measured[-1][model][0]:.3f} s a step")
    times = combine(conditions, known, measured)
    write_json(results / conditions.file_name, times)
    return times


def time_one(make_train: MakeTrain, model: str, source: str, image_size: int, threads: int) -> tuple[float, int]:
    """Time the steps of one model."""
    torch.set_num_threads(threads)
    return time_steps(SECONDS_TIMED, make_train(model, source, image_size, 0))


def one_process(threads: int, jobs: int = 1) -> ProcessPoolExecutor:
    """Return a pool with a process for each task, so that memory which one task fragments does not slow the next."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # the processes inherit it
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)


def run_all(
    models: Sequence[str],
    seeds: Sequence[int] | None,
    source: str,
    make_train: MakeTrain,
    results: Path,
    budget: float,
    jobs: int,
    conditions: Conditions,
) -> None:
    """Make the runs that have left no record yet.

    Args:
        models: the names of the models in the benchmark.
        seeds: the seeds of the runs of each model; by default 0.
        source: the data, for `load_detection_data`.
        make_train: makes the training of a run.
        results: the folder of the records and of the step times.
        budget: the minutes of training.
        jobs: the number of runs at the same time.
        conditions: the conditions under which the steps were timed.

    Raises:
        ValueError: the data cannot be used, the steps are not timed yet, or there are records of other settings.
    """
    load_detection_data(source)  # so that unusable data are named at once
    times = read_step_times(results, conditions)
    if times is None:
        raise ValueError(f"there is no {results / conditions.file_name}: run `time` first, with the machine quiet")
    check_conditions(conditions, times)
    missing = [model for model in models if model not in times["models"]]
    if missing:
        raise ValueError(f"the steps of {', '.join(missing)} are not timed yet: run `time --model {missing[0]}`")
    runs = [
        Settings(model=model, seed=seed, budget_seconds=round(60 * budget, 3), **asdict(conditions))
        for seed in seeds or [0]
        for model in models
    ]
    pending = [settings for settings in runs if not is_done(results / settings.file_name, settings)]
    typer.echo(f"{len(runs) - len(pending)} runs are done, {len(pending)} to do, of {budget:g} minutes each")
    threads = max(1, CORES // jobs)
    with one_process(threads, jobs) as pool:
        tasks = [pool.submit(run_one, settings, times, source, make_train, threads) for settings in pending]
        for task in as_completed(tasks):
            record = task.result()
            write_json(results / Settings(**record["settings"]).file_name, record)
            typer.echo(summary(record))


def run_one(settings: Settings, times: StepTimes, source: str, make_train: MakeTrain, threads: int) -> Record:
    """Train one model; return the record of the run."""
    torch.set_num_threads(threads)
    timed = times["models"][settings.model]
    data = load_detection_data(source, seed=settings.seed)  # as `hf-detr train` does
    training = train_for(
        settings.budget_seconds,
        timed["step_seconds"],
        timed["steps_per_epoch"],
        make_train(settings.model, source, settings.image_size, settings.seed),
    )
    return {
        "settings": asdict(settings),
        "train_images": len(data["train"]),
        "validation_images": len(data["validation"]),
        "fingerprint": data_fingerprint(data),
        "images_per_second": round(training["epochs"] * len(data["train"]) / training["seconds"], 2),
        **training,
        "machine": times["machine"],  # the budget is counted at its speed, wherever the run was made
    }


def summary(record: Record) -> str:
    """Return one line about a run."""
    metrics = ", ".join(f"{name} {record['metrics'][name]:.3f}" for name in ("AP", "AP50", "AP75"))
    settings = record["settings"]
    return (
        f"{settings['model']}, seed {settings['seed']}: {metrics} after {record['epochs']} epochs, "
        f"{record['images_per_second']} images/s, {record['peak_memory_mib']} MiB"
    )


def is_done(path: Path, settings: Settings) -> bool:
    """Return whether a run has left its record.

    Raises:
        ValueError: the file is the record of a run with other settings, or it is no record.
    """
    if not path.exists():
        return False
    found = read_record(path)["settings"]
    other = {name: found.get(name) for name, value in asdict(settings).items() if found.get(name) != value}
    if other:
        raise ValueError(
            f"{path} is the record of a run with {other}: move it away, or write to another folder with --results"
        )
    return True


def read_records(folder: Path, benchmark: str) -> list[Record]:
    """Read the records of a benchmark.

    Raises:
        ValueError: there are no records, or a file is no record.
    """
    paths = sorted(folder.glob(f"{benchmark}_*.json"))
    if not paths:
        raise ValueError(f"{folder} holds no {benchmark}_*.json: `run` writes them")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> Record:
    """Read the record of a run.

    Raises:
        ValueError: the file is no record.
    """
    return read_json(path, ("settings", "metrics", "curve"), "the record of a run")


def check_models(chosen: Sequence[str] | None, known: Collection[str]) -> list[str]:
    """Return the models that were asked for: all without a choice.

    Raises:
        ValueError: there is no such model.
    """
    unknown = [model for model in chosen or () if model not in known]
    if unknown:
        raise ValueError(f"there is no model {unknown[0]!r}; choose from {', '.join(known)}")
    return list(chosen or known)
