"""The command line: `hf-detr doctor | train | eval | predict | push | bench | presets | demo`.

What a command needs is imported inside it: asking for help should not wait for torch.
"""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from hf_detr.benchmarking import PRODUCT
from hf_detr.benchmarking.commands import bench_app
from hf_detr.ranks import rank
from hf_detr.terminal import clear_errors, console

app = typer.Typer(
    help="Train, evaluate and use object detectors of the DETR family.", no_args_is_help=True, add_completion=False
)
app.add_typer(bench_app(PRODUCT), name="bench")

DEMO_FOLDER = Path("demo-output")
# About ten minutes on two CPU cores.
DEMO_DATA, DEMO_EPOCHS, DEMO_IMAGE_SIZE = "synthetic", 20, 128
DEMO_THRESHOLD = 0.3

DataOption = Annotated[str, typer.Option("--data", help="A folder of detection data, or the word 'synthetic'.")]
ModelOption = Annotated[str, typer.Option("--model", help="A model folder, or a repository on the Hub.")]


@app.command()
def train(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="The model folder to write.")] = Path("my-detector"),
    preset: Annotated[str, typer.Option(help="The model to build; `hf-detr presets` lists them.")] = "tiny",
    model: Annotated[str | None, typer.Option(help="Fine-tune this model folder or repository instead.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, in place of epochs.", min=1)] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read the training images as they arrive; needs --steps.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch of each rank.", min=1)] = None,
    image_size: Annotated[int | None, typer.Option(help="Shortest edge of the images, in pixels.", min=32)] = None,
    config_overrides: Annotated[
        list[str],
        typer.Option("--set", help="A field of the model's configuration; may be repeated.", metavar="NAME=VALUE"),
    ] = [],  # noqa: B006 - typer reads it
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="How pictures are varied: none, flip, light, published or strong, which also combines pictures. "
            "Without it, what suits the preset and the length of the run."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    pretrained_backbone: Annotated[
        bool | None,
        typer.Option("--pretrained-backbone/--no-pretrained-backbone", help="Start from timm's pretrained weights."),
    ] = None,
    ema: Annotated[bool, typer.Option(help="Evaluate and save a moving average of the weights.")] = True,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many evaluations in a row without a better AP.", min=1)
    ] = None,
    report_to: Annotated[
        str | None, typer.Option(help="Also log to these, separated by commas: tensorboard, trackio, wandb.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that OUTPUT holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in OUTPUT.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Push the finished model to this repository, OWNER/NAME.", metavar="REPO")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
) -> None:
    """Train a model and write it, its card and its results to a folder."""
    options = {name: value for name, value in locals().items() if name not in ("push_to_hub", "private")}
    with clear_errors():
        from hf_detr.training.options import RunOptions
        from hf_detr.training.run import run_training
        from hf_detr.training.settings import parse_settings

        options["config_overrides"] = parse_settings(config_overrides)
        if push_to_hub is not None and rank() == 0:
            from hf_detr.hub.push import open_repository

            open_repository(push_to_hub, private=private)  # hours of training must not end at a missing permission
        command = shlex.join(["hf-detr", *sys.argv[1:]])
        run = RunOptions(**options, command=command)
        print_metrics(run_training(run))
        print_files(run)
        if push_to_hub is not None and rank() == 0:
            push_and_tell(run.output, push_to_hub, private=private)


@app.command()
def doctor(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="The folder for the report and its pictures.")] = Path("doctor-report"),
    seed: Annotated[int, typer.Option(help="Of the synthetic data, or of the split.", min=0)] = 0,
) -> None:
    """Read a data set once, say what is wrong with it, and recommend how to train on it.

    The exit code is 0 if it can be trained on, 1 if errors have to be corrected first, and 2 if it cannot be read at
    all.
    """
    with clear_errors():
        from hf_detr.doctor import check_output, examine, terminal_report, write_report

        check_output(data, output)
        diagnosis = examine(data, seed, progress_on=console)
        files = write_report(diagnosis, output)
        console.print(terminal_report(diagnosis))
        console.print(diagnosis.recommendation.command, soft_wrap=True, highlight=False, markup=False)
        console.print(f"report: {files[0]}", soft_wrap=True)
    if not diagnosis.trainable:
        raise typer.Exit(1)


@app.command("eval")
def evaluate(
    model: ModelOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="The split to evaluate on.")] = "validation",
    output: Annotated[Path | None, typer.Option(help="A JSON file to write the metrics to as well.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch of each rank.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of the synthetic data, or of the split.", min=0)] = 0,
) -> None:
    """Print the COCO metrics of a model on a data set."""
    with clear_errors():
        from hf_detr.data import load_detection_data, undecoded
        from hf_detr.files import write_json
        from hf_detr.prediction import load_detector
        from hf_detr.ranks import one_rank_first, process_group
        from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

        with process_group(), tempfile.TemporaryDirectory() as scratch:
            with one_rank_first():
                splits = load_detection_data(data, seed=seed)
                if split not in splits:
                    raise ValueError(f"{data} has no split '{split}'; it has {', '.join(splits)}")
                detector, image_processor = load_detector(model)
            args = HfDetrTrainingArguments(scratch, per_device_eval_batch_size=batch_size)
            trainer = HfDetrTrainer(detector, args, processing_class=image_processor)
            result = trainer.evaluate_by_class(undecoded(splits[split]))
            print_metrics(result)
            if output is not None and rank() == 0:
                write_json(output, result)


@app.command()
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files, parquet shards, folders of either, or data sets of the `datasets` library, saved or on "
            "the Hub.",
            metavar="SOURCE...",
        ),
    ],
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="What to write, separated by commas: pictures with boxes, coco (predictions.json), parquet (parts/).",
        ),
    ] = "pictures,coco",
    threshold: Annotated[float, typer.Option(help="The lowest score of a detection.", min=0.0, max=1.0)] = 0.5,
    batch_size: Annotated[int, typer.Option(help="The most images in a batch.", min=1)] = 8,
    chunk_size: Annotated[int, typer.Option(help="Images after which results are safe on disk.", min=1)] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes that read images, for each rank.", min=0)] = None,
    split: Annotated[str | None, typer.Option(help="The split of a data set.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Read data sets while they are downloaded.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where OUTPUT holds another run.")] = False,
) -> None:
    """Detect objects in any number of images; boxes are in pixels of each image.

    The same command goes on with a run that was killed. Under torchrun or `accelerate launch` every rank takes its
    share. The exit code is 1 if an image could not be read; failed.json names it.
    """
    options = {name: value for name, value in locals().items() if name != "options"}
    with clear_errors():
        from hf_detr.prediction import PredictionOptions, run_prediction

        options |= {"sources": tuple(sources), "formats": tuple(formats.split(","))}
        summary = run_prediction(PredictionOptions(**options), console)
        console.print(f"{summary.detections} detections on {summary.images} images: {output}", soft_wrap=True)
        if summary.failed and rank() == 0:
            failed = f"{summary.failed} of {summary.images} images could not be read: {output / 'failed.json'}"
            typer.echo(f"hf-detr: {failed}", err=True)
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="The model folder, as `hf-detr train` writes it.")],
    repo: Annotated[str, typer.Argument(help="The repository on the Hub, OWNER/NAME; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add the model's code, to load it without this package.")
    ] = False,
    license: Annotated[
        str | None, typer.Option("--license", "--licence", help="Of the weights, as the Hub names it: mit, cc-by-4.0…")
    ] = None,
    branch: Annotated[str, typer.Option(help="Push to this branch; made if need be.")] = "main",
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Push a model to the Hub: weights, image processor, model card, results and pictures in one commit."""
    options = {name: value for name, value in locals().items() if name not in ("folder", "repo")}
    with clear_errors():
        push_and_tell(folder, repo, **options)


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


@app.command()
def demo() -> None:
    """Train the tiny model on built-in pictures, evaluate it, reload it and show what it sees; about ten minutes."""
    with clear_errors():
        from hf_detr.training.options import RunOptions
        from hf_detr.training.run import run_training

        run = RunOptions(
            data=DEMO_DATA,
            output=DEMO_FOLDER,
            epochs=DEMO_EPOCHS,
            image_size=DEMO_IMAGE_SIZE,
            overwrite=True,
            command="hf-detr demo",
        )
        console.print(
            f"1. Training the preset '{run.preset}' from scratch: {run.epochs} epochs on built-in pictures of six "
            f"kinds of objects, {run.image_size} pixels high; about ten minutes on two CPU cores"
        )
        result = run_training(run)
        console.print("2. Reloading it with transformers.pipeline('object-detection')")
        sheet = draw_with_pipeline(run.output)
        console.print("3. Results on the validation images")
        print_metrics(result)
        print_files(run)
        console.print(f"  {'detections of the pipeline':<30}{sheet}")


def draw_with_pipeline(folder: Path) -> Path:
    """Run the saved model on validation images through `transformers.pipeline`; return the sheet of pictures."""
    from transformers import pipeline

    from hf_detr.data import category_names, make_synthetic_dataset
    from hf_detr.data.collate import detection_target
    from hf_detr.data.drawing import draw_detections, grid, side_by_side
    from hf_detr.data.loading import SYNTHETIC_VALIDATION_FIRST_ID

    data = make_synthetic_dataset(6, first_image_id=SYNTHETIC_VALIDATION_FIRST_ID)
    names = category_names(data)
    detector = pipeline("object-detection", model=str(folder))
    sheets = []
    for row in data:
        target = detection_target(row, row["image"])
        found = detector(row["image"], threshold=DEMO_THRESHOLD)
        boxes = [[detection["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for detection in found]
        labels = [names.index(detection["label"]) for detection in found]
        scores = [detection["score"] for detection in found]
        left = draw_detections(row["image"], target["boxes"], target["labels"], names)
        right = draw_detections(row["image"], boxes, labels, names, scores)
        sheets.append(side_by_side(left, right, ("ground truth", "detections")))
    path = folder / "pictures" / "pipeline.png"
    grid(sheets, columns=2).save(path)
    return path


def push_and_tell(folder: Path, repo: str, **options: Any) -> None:
    """Push a model folder; say where it is, and what its card still lacks."""
    from huggingface_hub import ModelCard

    from hf_detr.hub.push import push_folder

    commit = push_folder(folder, repo, **options)
    console.print(f"{folder} is on the Hub: {commit.commit_url}", soft_wrap=True)
    card = folder / "README.md"
    if options.get("license") is None and (not card.exists() or ModelCard.load(card).data.license == "unknown"):
        console.print("Its licence is 'unknown', so nobody knows what is allowed: push again with --license")


def print_metrics(result: dict[str, Any]) -> None:
    """Print the COCO metrics of `CocoMetrics` and its class table."""
    from hf_detr.evaluation import format_table

    console.print(Text(format_table(result)))


def print_files(run: Any) -> None:
    """Print where a run left what."""
    for label, path in {
        "model": run.output,
        "model card": run.output / "README.md",
        "numbers and curves": f"{run.output / 'results.csv'}, {run.output / 'results.png'}",
        "pictures beside ground truth": run.pictures,
    }.items():
        console.print(f"  {label:<30}{path}", soft_wrap=True)


if __name__ == "__main__":
    app()
