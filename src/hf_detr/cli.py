"""The command line `hf-detr`, with the commands doctor, train, eval, predict, push, bench, presets and demo.

Each command imports what it needs when it runs, so that asking for help does not wait for torch.
"""

import shlex
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from hf_detr.benchmarking import PRODUCT
from hf_detr.benchmarking.commands import bench_app
from hf_detr.command_line import command
from hf_detr.demo import DemoOptions, draw_with_pipeline, plan_run
from hf_detr.doctor.options import DoctorOptions
from hf_detr.hub.options import PushOptions
from hf_detr.machine import let_threads_sleep
from hf_detr.prediction.options import PredictionOptions
from hf_detr.ranks import rank
from hf_detr.terminal import console, report_once
from hf_detr.training.options import EvaluationOptions, TrainOptions

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(bench_app(PRODUCT), name="bench")


def print_version(wanted: bool) -> None:
    """Print the version and end the program, if that is wanted."""
    if wanted:
        from hf_detr import __version__

        typer.echo(f"hf-detr {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Train, evaluate and use object detectors of the DETR family."""


@command(app, TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a model and write it, its card and its results to a folder."""
    from hf_detr.training.run import run_training

    if options.push_to_hub is not None and rank() == 0:
        from hf_detr.hub.push import open_repository

        # This is checked first, so that hours of training do not end at a missing permission.
        open_repository(options.push_to_hub, private=options.private)
    run = replace(options, command=shlex.join(["hf-detr", *sys.argv[1:]]))
    print_metrics(run_training(run))
    print_files(run)
    if options.push_to_hub is not None and rank() == 0:
        push_and_tell(PushOptions(folder=options.output, repo=options.push_to_hub, private=options.private))


@command(app, DoctorOptions)
def doctor(options: DoctorOptions) -> None:
    """Read a data set once, say what is wrong with it, and recommend how to train on it.

    The exit code is 0 if it can be trained on, 1 if errors have to be corrected first, and 2 if it cannot be read at
    all.
    """
    from hf_detr.doctor import check_output, examine, terminal_report, write_report

    check_output(options.data, options.output)
    diagnosis = examine(options.data, options.seed, options, progress_on=console)
    files = write_report(diagnosis, options.output)
    console.print(terminal_report(diagnosis))
    console.print(diagnosis.recommendation.command, soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {files[0]}", soft_wrap=True)
    if not diagnosis.trainable:
        raise typer.Exit(1)


@command(app, EvaluationOptions, "eval")
def evaluate(options: EvaluationOptions) -> None:
    """Print the COCO metrics of a model on a data set."""
    from hf_detr.training.evaluate import run_evaluation

    print_metrics(run_evaluation(options))


@command(app, PredictionOptions)
def predict(options: PredictionOptions) -> None:
    """Detect objects in any number of images; boxes are in pixels of each image.

    The same command goes on with a run that was killed. Under torchrun or `accelerate launch` every rank takes its
    share. The exit code is 1 if an image could not be read; failed.json names it.
    """
    from hf_detr.prediction import run_prediction

    summary = run_prediction(options, console)
    read = summary.images - summary.failed
    console.print(f"{summary.detections} detections on {read} images: {options.output}", soft_wrap=True)
    for remark in summary.remarks if rank() == 0 else ():
        report_once(remark)
    if summary.failed:
        if rank() == 0:
            failed = f"{summary.failed} of {summary.images} images could not be read: {options.output / 'failed.json'}"
            typer.echo(f"hf-detr: {failed}", err=True)
        raise typer.Exit(1)


@command(app, PushOptions)
def push(options: PushOptions) -> None:
    """Push a model to the Hub: weights, image processor, model card, results and pictures in one commit."""
    push_and_tell(options)


@app.command()
def presets() -> None:
    """List the models that can be built by name."""
    from hf_detr.modeling.configuration import HfDetrConfig
    from hf_detr.modeling.presets import available_presets

    table = Table()
    table.add_column("preset", no_wrap=True)
    table.add_column("backbone", overflow="fold")
    table.add_column("queries", justify="right")
    table.add_column("levels", justify="right")
    for name in available_presets():
        config = HfDetrConfig.from_preset(name)
        backbone = config.backbone + (" (dilated)" if config.dilation else "")
        table.add_row(name, backbone, str(config.num_queries), str(config.num_feature_levels))
    console.print(table)


@command(app, DemoOptions)
def demo(options: DemoOptions) -> None:
    """Train the tiny model on built-in pictures for some minutes, evaluate it, reload it and show what it sees."""
    from hf_detr.training.run import run_training

    console.print("1. Measuring how fast this machine trains the preset 'tiny' on built-in pictures of 128 pixels")
    run, told = plan_run(options)
    console.print(f"   {told}")
    console.print("2. Training it from scratch")
    result = run_training(run)
    console.print("3. Reloading it with transformers.pipeline('object-detection')")
    sheet = draw_with_pipeline(run.output)
    console.print("4. Results on the validation images")
    print_metrics(result)
    print_files(run)
    console.print(f"  {'detections of the pipeline':<30}{sheet}")


def main() -> None:
    """Run the command line; the threads of OpenMP wait asleep where other programs need the cores."""
    let_threads_sleep()
    app()


def push_and_tell(options: PushOptions) -> None:
    """Push a model folder; say where it is, and what its card still lacks."""
    from huggingface_hub import ModelCard

    from hf_detr.hub.push import push_folder

    commit = push_folder(options)
    console.print(f"{options.folder} is on the Hub: {commit.commit_url}", soft_wrap=True)
    card = options.folder / "README.md"
    if options.license is None and (not card.exists() or ModelCard.load(card).data.license == "unknown"):
        console.print("Its licence is 'unknown', so nobody knows what is allowed: push again with --license")


def print_metrics(result: dict[str, Any]) -> None:
    """Print the COCO metrics of `CocoMetrics` and its class table."""
    from hf_detr.evaluation import format_table

    console.print(Text(format_table(result)))


def print_files(run: Any) -> None:
    """Print the files and folders that a run has written."""
    for label, path in {
        "model": run.output,
        "model card": run.output / "README.md",
        "numbers and curves": f"{run.output / 'results.csv'}, {run.output / 'results.png'}",
        "pictures beside ground truth": run.pictures,
    }.items():
        console.print(f"  {label:<30}{path}", soft_wrap=True)


if __name__ == "__main__":
    main()
