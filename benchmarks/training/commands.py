"""Builds the commands `time` and `run` that benchmarks of training have in common."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from runs import CORES, RESULTS, MakeTrain, check_models, run_all, time_all
from step_times import Conditions

from hf_detr.terminal import clear_errors

ResultsOption = Annotated[Path, typer.Option(help="The folder of the JSON files.")]
REQUIRED = ...


def benchmark_app(
    description: str,
    benchmark: str,
    models: Collection[str],
    make_train: MakeTrain,
    *,
    data: Any,
    image_size: int,
    budget: float,
) -> typer.Typer:
    """Return the application of a benchmark, with `time` and `run`.

    Args:
        description: the help of the application.
        benchmark: the name of the benchmark, with which the names of its files begin.
        models: the names of the models that it trains.
        make_train: the function that makes the training of a run.
        data: the default of `--data`, or `REQUIRED`.
        image_size, budget: the defaults of these options.
    """
    app = typer.Typer(help=description, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    DataOption = Annotated[str, typer.Option(help="A folder of detection data, or 'synthetic' for the built-in set.")]
    ModelOption = Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(models)}. It may be repeated; by default all.")
    ]
    ImageSizeOption = Annotated[int, typer.Option(help="The shortest edge of the images in pixels.", min=64)]
    ThreadsOption = Annotated[int, typer.Option(help="The threads of PyTorch with which the steps are timed.", min=1)]

    @app.command()
    def time(
        data: DataOption = data,
        model: ModelOption = None,
        rounds: Annotated[int, typer.Option(help="How often each model is timed, in turns.", min=1)] = 3,
        threads: ThreadsOption = CORES,
        image_size: ImageSizeOption = image_size,
        results: ResultsOption = RESULTS,
    ) -> None:
        """Time the training steps of models in turns; nothing else may run meanwhile. Times known are kept."""
        conditions = conditions_of(benchmark, data, threads, image_size)
        with clear_errors():
            time_all(check_models(model, models), data, make_train, results, rounds, conditions)

    @app.command()
    def run(
        data: DataOption = data,
        model: ModelOption = None,
        seed: Annotated[
            list[int] | None,
            typer.Option(help="A seed. It may be repeated for several runs of each model; by default 0."),
        ] = None,
        budget: Annotated[float, typer.Option(help="The minutes of training of each run.", min=0.001)] = budget,
        threads: ThreadsOption = CORES,
        jobs: Annotated[
            int,
            typer.Option(
                help="Runs at the same time, among which the cores are divided. It changes only how long they take.",
                min=1,
            ),
        ] = 1,
        image_size: ImageSizeOption = image_size,
        results: ResultsOption = RESULTS,
    ) -> None:
        """Train models for a fixed time each and write one JSON file a run. Finished runs are not repeated."""
        conditions = conditions_of(benchmark, data, threads, image_size)
        with clear_errors():
            run_all(check_models(model, models), seed, data, make_train, results, budget, jobs, conditions)

    return app


def conditions_of(benchmark: str, data: str, threads: int, image_size: int) -> Conditions:
    """Return the conditions on which the time of a step depends."""
    name = data.replace(":", "-") if data.startswith("synthetic") else Path(data).resolve().name
    return Conditions(benchmark=benchmark, data=name, threads=threads, image_size=image_size)
