"""The command line: `hf-detr train | eval | predict | presets | demo`.

What a command needs is imported inside it: asking for help should not wait for torch.
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from PIL import Image

app = typer.Typer(
    help="Train, evaluate and use object detectors of the DETR family.", no_args_is_help=True, add_completion=False
)
console = Console()

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEMO_FOLDER = Path("demo-output")
# Meant to take a few minutes on two CPU cores.
DEMO_DATA, DEMO_EPOCHS, DEMO_IMAGE_SIZE = "synthetic", 6, 128
DEMO_THRESHOLD = 0.3

DataOption = Annotated[str, typer.Option("--data", help="A folder of detection data, or the word 'synthetic'.")]
ModelOption = Annotated[str, typer.Option("--model", help="A model folder, or a repository on the Hub.")]


@app.command()
def train(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="The model folder to write.")],
    preset: Annotated[str, typer.Option(help="The model to build; `hf-detr presets` lists them.")] = "tiny",
    model: Annotated[str | None, typer.Option(help="Fine-tune this model folder or repository instead.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch.", min=1)] = None,
    image_size: Annotated[int | None, typer.Option(help="Shortest edge of the images, in pixels.", min=32)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    pretrained_backbone: Annotated[
        bool | None,
        typer.Option("--pretrained-backbone/--no-pretrained-backbone", help="Start from timm's pretrained weights."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that OUTPUT holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in OUTPUT.")] = False,
) -> None:
    """Train a model and write it, its card and its results to a folder."""
    options = {name: value for name, value in locals().items() if name != "options"}
    with clear_errors():
        from hf_detr.training.run import RunOptions, run_training

        command = shlex.join(["hf-detr", *sys.argv[1:]])
        run = RunOptions(**options, command=command)
        print_metrics(run_training(run))
        print_files(run)


@app.command("eval")
def evaluate(
    model: ModelOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="The split to evaluate on.")] = "validation",
    batch_size: Annotated[int, typer.Option(help="Images in a batch.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of the synthetic data, or of the split.", min=0)] = 0,
) -> None:
    """Print the COCO metrics of a model on a data set."""
    with clear_errors(), tempfile.TemporaryDirectory() as scratch:
        from hf_detr.data import load_detection_data, undecoded
        from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

        splits = load_detection_data(data, seed=seed)
        if split not in splits:
            raise ValueError(f"{data} has no split '{split}'; it has {', '.join(splits)}")
        detector, image_processor = load_model(model)
        args = HfDetrTrainingArguments(scratch, per_device_eval_batch_size=batch_size)
        trainer = HfDetrTrainer(detector, args, processing_class=image_processor)
        metrics = trainer.evaluate(undecoded(splits[split]))
        metrics = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        print_metrics({**metrics, "per_class": trainer.per_class})


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", metavar="IMAGE...")],
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The folder for pictures and predictions.json.")],
    threshold: Annotated[float, typer.Option(help="The lowest score of a detection.", min=0.0, max=1.0)] = 0.5,
    batch_size: Annotated[
        int, typer.Option(help="Images in a batch; padding to a common size moves boxes a little.", min=1)
    ] = 1,
) -> None:
    """Detect objects in images: pictures with boxes, and predictions.json with boxes in pixels of each image."""
    with clear_errors():
        from hf_detr.data.drawing import draw_detections
        from hf_detr.prediction import detect
        from hf_detr.training.callbacks import replace_file

        files = image_files(images)
        for file in files:
            open_image(file)  # before any work: a broken image must not cost what was done for the others
        detector, image_processor = load_model(model)
        names = [detector.config.id2label[label] for label in range(detector.config.num_labels)]
        output.mkdir(parents=True, exist_ok=True)

        predictions: list[dict[str, Any]] = []
        batches = batched(list(enumerate(files, start=1)), batch_size)
        for batch in track(list(batches), "Detecting", console=console):
            pictures = [open_image(file) for _, file in batch]
            detections = detect(detector, image_processor, pictures, threshold)
            for (image_id, file), picture, detection in zip(batch, pictures, detections, strict=True):
                predictions += coco_results(image_id, file, detection, names)
                drawn = draw_detections(picture, names=names, **detection)
                drawn.save(output / f"{image_id:04d}_{file.stem}.jpg", quality=92)
        text = json.dumps(predictions, indent=1)
        replace_file(output / "predictions.json", lambda path: path.write_text(text, encoding="utf-8"))
        console.print(f"{len(predictions)} detections on {len(files)} images: {output}")


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
    """Train the tiny model on built-in pictures, evaluate it, reload it and show what it sees; a few minutes."""
    with clear_errors():
        from hf_detr.training.run import RunOptions, run_training

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
            f"kinds of objects, {run.image_size} pixels high; a few minutes on two CPU cores"
        )
        result = run_training(run)
        console.print("2. Reloading it with transformers.pipeline('object-detection')")
        sheet = draw_with_pipeline(run.output)
        console.print("3. Results on the validation images")
        print_metrics(result)
        print_files(run)
        console.print(f"  {'detections of the pipeline':<30}{sheet}")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and exit code 2."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # for reading and writing weights, a moment
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"hf-detr: {error}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        remedy = "install what training and evaluation need: pip install 'hf-detr[train]'"
        typer.echo(f"hf-detr: {error.name} is not installed; {remedy}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("hf-detr: interrupted", err=True)
        raise typer.Exit(130) from error


def load_model(model: str) -> tuple[Any, Any]:
    """Load a detector, in evaluation mode on the accelerator if there is one, and its image processor."""
    import torch

    from hf_detr.modeling.detr import HfDetrForObjectDetection
    from hf_detr.modeling.image_processing import HfDetrImageProcessor

    detector = HfDetrForObjectDetection.from_pretrained(model).eval()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return detector.to(device), HfDetrImageProcessor.from_pretrained(model)


def image_files(paths: list[Path]) -> list[Path]:
    """Return the image files among `paths` and inside the folders among them.

    Raises:
        ValueError: a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        if path.is_file():
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ValueError(f"{path}: no image in this folder; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        files += found
    return files


def open_image(file: Path) -> "Image.Image":
    """Return an image file as an RGB picture the way it is displayed.

    Raises:
        DataError: it is not an image, or a broken one.
    """
    from hf_detr.data import decode_image

    return decode_image({"path": str(file), "bytes": None})


def batched(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield `items` in lists of `size`, the last one shorter where they do not divide."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def coco_results(image_id: int, file: Path, detection: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Return detections in the COCO results format, `bbox` (x, y, width, height) in pixels, with names added."""
    boxes = detection["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns = (detection[name].tolist() for name in ("labels", "scores"))
    return [
        {
            "image_id": image_id,
            "file_name": str(file),
            "category_id": label,
            "category_name": names[label],
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 5),
        }
        for box, label, score in zip(boxes.tolist(), *columns, strict=True)
    ]


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
