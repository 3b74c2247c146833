"""What a run shows and writes while it trains: a progress bar, a table and a plot of its numbers, pictures."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from matplotlib.figure import Figure
from transformers import ProgressCallback, TrainerCallback

from hf_detr.data import category_names, decode_image, undecoded
from hf_detr.data.collate import detection_target
from hf_detr.data.drawing import draw_detections, side_by_side
from hf_detr.prediction import detect


class LossProgress(ProgressCallback):
    """The progress bar of `Trainer`, with the last loss and AP behind it instead of a line for each log."""

    def __init__(self):
        super().__init__()
        self.shown: dict[str, str] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the new numbers."""
        names = {"loss": "loss", "eval_AP": "AP"}
        self.shown |= {label: f"{logs[name]:.3f}" for name, label in names.items() if name in logs}
        if self.training_bar is not None:
            self.training_bar.set_postfix(self.shown)


class ResultFiles(TrainerCallback):
    """Writes everything that was logged to `results.csv`, and the loss and AP curves to `results.png`.

    Args:
        folder: where to write; an existing one.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def on_evaluate(self, args, state, control, **kwargs):
        """Bring the files up to date."""
        self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        """Bring the files up to date."""
        self._write(state)

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            rows = merge_by_step(state.log_history)
            replace_file(self.folder / "results.csv", lambda path: write_csv(rows, path))
            replace_file(self.folder / "results.png", lambda path: plot_results(rows, path))


class PredictionPictures(TrainerCallback):
    """After each evaluation, draws the detections on some images beside the ground truth.

    Args:
        folder: where `<image id>.jpg` are written, replacing those of the evaluation before.
        dataset: the evaluation set, in the schema of `hf_detr.data`.
        count: the number of pictures, spread evenly over the data set.
        threshold: the lowest score drawn.
    """

    def __init__(self, folder: str | Path, dataset: Dataset, count: int = 4, threshold: float = 0.3):
        self.folder = Path(folder)
        count = min(count, len(dataset))
        self.rows = undecoded(dataset).select([index * len(dataset) // count for index in range(count)])
        self.threshold = threshold

    def on_evaluate(self, args, state, control, model=None, processing_class=None, **kwargs):
        """Draw the pictures."""
        if not state.is_world_process_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        names = category_names(self.rows)
        was_training = model.training
        model.eval()
        for row in self.rows:
            image = decode_image(row["image"], row["image_id"])
            detection = detect(model, processing_class, [image], self.threshold)[0]
            target = detection_target(row, image)
            picture = side_by_side(
                draw_detections(image, target["boxes"], target["labels"], names),
                draw_detections(image, names=names, **detection),
                ("ground truth", "detections"),
            )
            replace_file(self.folder / f"{row['image_id']}.jpg", lambda path, p=picture: p.save(path, "JPEG"))
        model.train(was_training)


def merge_by_step(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Merge the entries of a `TrainerState.log_history` that belong to the same step into one row."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        rows.setdefault(entry["step"], {"step": entry["step"]}).update(entry)
    return [rows[step] for step in sorted(rows)]


def write_csv(rows: list[dict[str, float]], path: Path) -> None:
    """Write rows whose keys may differ; the columns stand in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def plot_results(rows: list[dict[str, float]], path: Path) -> None:
    """Plot the losses, and AP and AP50, over the steps."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    curves = (
        {"loss": "training loss", "eval_loss": "validation loss"},
        {"eval_AP": "AP", "eval_AP50": "AP50"},
    )
    for axes, names in zip(figure.subplots(1, 2), curves, strict=True):
        for name, label in names.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True) if points else ([], []), marker=".", label=label)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, format="png", dpi=120)


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` write a file beside `path`, then put it in the place of `path`: nobody reads half a file."""
    beside = path.with_name(f".{path.name}.partial")
    write(beside)
    os.replace(beside, path)
