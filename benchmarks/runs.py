"""Runs of a benchmark: their settings, a process for each, and the JSON file that each leaves behind."""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import DatasetDict
from timed_training import Train, train_for

from hf_detr.data import data_fingerprint, load_detection_data
from hf_detr.files import replace_file

RESULTS = Path(__file__).resolve().parent / "results"
CORES = os.cpu_count() or 1

Record = dict[str, Any]

SeedOption = Annotated[list[int] | None, typer.Option(help="Repeat it for several runs of each model; 0 without it.")]
BudgetOption = Annotated[float, typer.Option(help="Minutes of training for each run.", min=0.001)]
CpuTimeOption = Annotated[
    bool,
    typer.Option(
        "--cpu-time", help="The budget is CPU time, the seconds of all threads: for a machine that has other work too."
    ),
]
ThreadsOption = Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)]
ResultsOption = Annotated[Path, typer.Option(help="The folder of the JSON files.")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the outcome of a run.

    Attributes:
        benchmark: the benchmark that it belongs to.
        model: what is trained, by its name in the benchmark.
        data: what the data set is called in reports.
        seed: of everything random.
        budget_seconds: of training.
        cpu_time: the budget is CPU time instead of wall-clock.
        threads: of PyTorch.
        image_size: the shortest edge of the images in pixels.
    """

    benchmark: str
    model: str
    data: str
    seed: int
    budget_seconds: float
    cpu_time: bool
    threads: int
    image_size: int

    @property
    def file_name(self) -> str:
        """The name of the record."""
        return f"{self.benchmark}_{self.data}_{self.model}_seed{self.seed}.json"


MakeTrain = Callable[[Settings, str, DatasetDict], Train]
"""From the settings, the source of the data and the data to the training."""


def run_all(
    models: Sequence[str],
    seeds: Sequence[int] | None,
    source: str,
    make_train: MakeTrain,
    results: Path,
    **common: Any,
) -> None:
    """Run what has left no record yet, one after the other.

    Args:
        models: names of models in the benchmark.
        seeds: of the runs of each; 0 without it.
        source: the data, for `load_detection_data`.
        make_train: makes the training of a run.
        results: the folder of the records.
        common: the other fields of `Settings`, and `budget` in minutes.

    Raises:
        ValueError: the data cannot be used, or there are records of runs with other settings.
    """
    budget = round(60 * common.pop("budget"), 3)
    runs = [
        Settings(model=model, seed=seed, budget_seconds=budget, **common) for seed in seeds or [0] for model in models
    ]
    load_detection_data(source)  # unusable data are named at once
    pending = [settings for settings in runs if not is_done(results / settings.file_name, settings)]
    typer.echo(f"{len(runs) - len(pending)} runs are done, {len(pending)} to do")
    for settings in pending:
        typer.echo(f"{settings.model}, seed {settings.seed}: {budget / 60:g} minutes of training")
        # A process each: memory that one run has mapped or fragmented does not slow down the next.
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            record = pool.submit(run_one, settings, source, make_train).result()
        write_record(results / settings.file_name, record)
        typer.echo(summary(record))


def run_one(settings: Settings, source: str, make_train: MakeTrain) -> Record:
    """Train one model; return the record of the run."""
    torch.set_num_threads(settings.threads)
    data = load_detection_data(source, seed=settings.seed)  # as `hf-detr train` does
    training = train_for(settings.budget_seconds, settings.cpu_time, make_train(settings, source, data))
    return {
        "settings": asdict(settings),
        "train_images": len(data["train"]),
        "validation_images": len(data["validation"]),
        "fingerprint": data_fingerprint(data),
        "images_per_second": round(training["epochs"] * len(data["train"]) / training["seconds"], 2),
        **training,
    }


def summary(record: Record) -> str:
    """One line about a run."""
    metrics = ", ".join(f"{name} {record['metrics'][name]:.3f}" for name in ("AP", "AP50", "AP75"))
    return (
        f"{record['settings']['model']}: {metrics} after {record['seconds']:.0f} s, {record['epochs']} epochs, "
        f"{record['images_per_second']} images/s, {record['peak_memory_mib']} MiB"
    )


def is_done(path: Path, settings: Settings) -> bool:
    """Return whether a run has left its record.

    Raises:
        ValueError: the record is there, but of a run with other settings, or it is none.
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
        ValueError: there are none, or a file is none.
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
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): move it away") from error
    expected = {"settings", "metrics", "curve"}
    if not isinstance(record, dict) or not expected <= set(record):
        raise ValueError(f"{path} is not the record of a run, which has {sorted(expected)}: move it away")
    return record


def write_record(path: Path, record: Record) -> None:
    """Write the record of a run; nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def check_models(chosen: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return the models that were asked for: all without a choice.

    Raises:
        ValueError: there is no such model.
    """
    unknown = [model for model in chosen or () if model not in known]
    if unknown:
        raise ValueError(f"there is no model {unknown[0]!r}; choose from {', '.join(known)}")
    return list(chosen or known)
