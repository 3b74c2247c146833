"""The commands `time` and `run` that benchmarks of training have in common."""

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
        benchmark: what its files are called by.
        models: names of what it trains.
        make_train: makes the training of a run.
        data: the default of `--data`, or `REQUIRED`.
        image_size, budget: the defaults of these options.
    """
    app = typer.Typer(help=description, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    DataOption = Annotated[str, typer.Option(help="A folder of detection data, or 'synthetic' for the built-in set.")]
    ModelOption = Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(models)}; repeat it for several. Without it: all.")
    ]
    ImageSizeOption = Annotated[int, typer.Option(help="Shortest edge of the images in pixels.", min=64)]
    ThreadsOption = Annotated[int, typer.Option(help="Threads of PyTorch that the steps are timed with.", min=1)]

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
            list[int] | None, typer.Option(help="Repeat it for several runs of each model; 0 without it.")
        ] = None,
        budget: Annotated[float, typer.Option(help="Minutes of training for each run.", min=0.001)] = budget,
        threads: ThreadsOption = CORES,
        jobs: Annotated[
            int,
            typer.Option(
                help="Runs side by side, the cores divided among them: it changes only how long they take.", min=1
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
    """Return what the time of a step depends on."""
    name = data.replace(":", "-") if data.startswith("synthetic") else Path(data).resolve().name
    return Conditions(benchmark=benchmark, data=name, threads=threads, image_size=image_size)
