"""Measures how good a detector becomes on little data in a given time: hf_detr against transformers' detectors.

    python benchmarks/training/small_data.py time --data path/to/bccd   # the only part that needs a quiet machine
    python benchmarks/training/small_data.py run --data path/to/bccd --model ours --seed 0 --seed 1 --seed 2 --jobs 2
    python benchmarks/training/small_data.py run --data path/to/bccd --model detr --model rt_detr_v2
    python benchmarks/training/small_data.py report

Everything starts from random weights, sees images of the same size and uses the same threads. The peers have a
ResNet-18, and ours has a ResNet-18 of half the width. `ours` is `hf-detr train` with its defaults. The peers and their
recipe are in transformers_peers.py, and timed_training.py says how time is counted. Every run is a process of its own
and leaves one JSON file; a run whose file is there is not repeated.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from commands import REQUIRED, ResultsOption, benchmark_app
from reports import DOCS, PAGE, conditions, group_by, plot_curves, spread, table, write_section
from runs import RESULTS, Record, read_records
from timed_training import Train
from transformers import TrainerCallback
from transformers_peers import PEERS, train_peer

from hf_detr.data import load_detection_data
from hf_detr.terminal import clear_errors
from hf_detr.training.options import DEFAULT_PRESET, RunOptions
from hf_detr.training.recipe import default_image_size
from hf_detr.training.run import run_training

BENCHMARK = "small_data"
OURS = "ours"
IMAGE_SIZE = default_image_size(DEFAULT_PRESET)
TITLES = {OURS: "hf_detr", **{name: peer.title for name, peer in PEERS.items()}}


def train_ours(
    source: str, image_size: int, seed: int, epochs: float, callbacks: Sequence[TrainerCallback]
) -> dict[str, Any]:
    """Run `hf-detr train` with its defaults for whole epochs, into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        size = {} if image_size == IMAGE_SIZE else {"image_size": image_size}
        options = RunOptions(data=source, output=Path(folder) / "model", epochs=max(1, int(epochs)), seed=seed, **size)
        return run_training(options, callbacks)


def train_theirs(
    model: str, source: str, image_size: int, seed: int, epochs: float, callbacks: Sequence[TrainerCallback]
) -> dict[str, Any]:
    """Train a peer in a folder that is thrown away."""
    data = load_detection_data(source, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return train_peer(PEERS[model], data, Path(folder), epochs, callbacks, shortest_edge=image_size, seed=seed)


def make_train(model: str, source: str, image_size: int, seed: int) -> Train:
    """Return the training of a model of this benchmark."""
    if model == OURS:
        return partial(train_ours, source, image_size, seed)
    return partial(train_theirs, model, source, image_size, seed)


app = benchmark_app(__doc__, BENCHMARK, TITLES, make_train, data=REQUIRED, image_size=IMAGE_SIZE, budget=20.0)


@app.command()
def report(
    results: ResultsOption = RESULTS,
    page: Annotated[Path, typer.Option(help="The page whose sections are rewritten.")] = PAGE,
    figures: Annotated[Path, typer.Option(help="The folder of the figures.")] = DOCS,
) -> None:
    """Write the table and the figure of each data set from the JSON files, to docs/benchmarks.md."""
    with clear_errors():
        for data, records in group_by(read_records(results, BENCHMARK), "data").items():
            by_model = group_by(records, "model", TITLES)
            figure = figures / f"benchmark_{data}.png"
            write_section(f"{BENCHMARK} {data}", section(data, by_model, figure.name), page)
            labels = {TITLES[model]: runs for model, runs in by_model.items()}
            plot_curves(labels, {"AP": "AP", "AP50": "AP50"}, figure)
            typer.echo(f"{data}: {len(records)} runs, in {page} and {figure}")


def section(data: str, by_model: dict[str, list[Record]], figure: str) -> str:
    """Return the report on one data set."""
    records = [record for runs in by_model.values() for record in runs]
    header = [
        "model",
        "parameters (M)",
        "AP",
        "AP50",
        "AP75",
        "AP small",
        "epochs",
        "images/s",
        "runs",
        "AP, ours / its",
    ]
    return "\n\n".join(
        [
            conditions(records),
            table(header, [row(runs, by_model.get(OURS)) for runs in by_model.values()]),
            f"![AP and AP50 over the minutes of training]({figure})",
            "```bash\n" + "\n".join(commands(data, by_model)) + "\n```",
        ]
    )


def row(runs: list[Record], ours: list[Record] | None) -> list[str]:
    """Return the row of one model: the mean of its runs, with the lowest and the highest."""
    means = [sum(run["metrics"]["AP"] for run in of_model) / len(of_model) for of_model in (ours or runs, runs)]
    return [
        TITLES[runs[0]["settings"]["model"]],
        f"{runs[0]['parameters'] / 1e6:.1f}",
        *(spread([run["metrics"][name] for run in runs]) for name in ("AP", "AP50", "AP75", "AP_small")),
        spread([run["epochs"] for run in runs], digits=0),
        spread([run["images_per_second"] for run in runs], digits=1),
        str(len(runs)),
        ratio(means[0], means[1]) if ours not in (None, runs) else "",
    ]


def ratio(ours: float, theirs: float) -> str:
    """Return how many times better ours is, or a dash where theirs is so small that the quotient would be noise."""
    return f"{ours / theirs:.2f}" if theirs >= 0.005 else "-"


def commands(data: str, by_model: dict[str, list[Record]]) -> list[str]:
    """Return the commands that make these runs."""
    settings = next(iter(by_model.values()))[0]["settings"]
    options = {
        "--data": data.replace("-", ":") if data.startswith("synthetic") else f"path/to/{data}",
        "--threads": settings["threads"],
        "--image-size": settings["image_size"],
    }
    given = " ".join(f"{name} {value}" for name, value in options.items())
    lines = [f"python benchmarks/training/{BENCHMARK}.py time {given}"]
    for model, runs in by_model.items():
        budget = runs[0]["settings"]["budget_seconds"] / 60
        seeds = "".join(f" --seed {run['settings']['seed']}" for run in runs)
        lines.append(
            f"python benchmarks/training/{BENCHMARK}.py run {given} --model {model} --budget {budget:g}{seeds}"
        )
    return [*lines, f"python benchmarks/training/{BENCHMARK}.py report"]


if __name__ == "__main__":
    app()
