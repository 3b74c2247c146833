"""Callbacks that show and write what a run does: a progress bar, a table and a plot of its numbers, pictures."""

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from matplotlib.figure import Figure
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_detr.data import category_names, decode_image, undecoded
from hf_detr.data.collate import detection_target
from hf_detr.data.drawing import draw_detections, side_by_side
from hf_detr.files import replace_file
from hf_detr.prediction import detect


class LossProgress(ProgressCallback):
    """The progress bar of `Trainer`, with the last loss and AP behind it, and a line for each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar. A resumed run judges the time left by its own steps, not by the steps of the run before it."""
        super().on_train_begin(args, state, control, **kwargs)
        self.current_step = state.global_step
        if self.training_bar is not None:
            self.training_bar.initial = self.training_bar.n = state.global_step

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line."""
        super().on_evaluate(args, state, control, **kwargs)
        if self.training_bar is not None and metrics:
            self.training_bar.write(evaluation_line(metrics, state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the new numbers."""
        logs, names = logs or {}, {"loss": "loss", "eval_AP": "AP"}
        self.shown |= {label: in_digits(logs[name]) for name, label in names.items() if name in logs}
        if self.training_bar is not None:
            self.training_bar.set_postfix(self.shown)

    def close(self) -> None:
        """Close the bars of a run that is broken off, so that what is printed next starts on a line of its own."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()
        self.prediction_bar = self.training_bar = None


class EarlyStopping(EarlyStoppingCallback):
    """Stops the training when the metric for the best model has not risen for some evaluations, and says so.

    Args:
        early_stopping_patience: the number of evaluations in a row.
    """

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Compare with the best evaluation so far."""
        if control.should_training_stop or state.global_step >= state.max_steps:
            return
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if control.should_training_stop and state.is_world_process_zero:
            metric = str(args.metric_for_best_model).removeprefix("eval_")
            tqdm.write(
                f"Stopped at step {state.global_step} of {state.max_steps}: no better "
                f"{metric} in {self.early_stopping_patience} evaluations; "
                f"the best was {in_digits(state.best_metric)} at step {state.best_global_step}"
            )


class ResultFiles(TrainerCallback):
    """Writes everything that was logged in training to `results.csv`, and its curves to `results.png`.

    Args:
        folder: where to write; an existing one.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to write."""
        self.is_training = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bring the files up to date. The evaluation of the best model at the end is no point of the curves."""
        if self.is_training:
            self._write(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bring the files up to date."""
        self._write(state)
        self.is_training = False

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            rows = merge_by_step(state.log_history)
            replace_file(self.folder / "results.csv", lambda path: write_csv(rows, path))
            replace_file(self.folder / "results.png", lambda path: plot_results(rows, path))


class PredictionPictures(TrainerCallback):
    """After each evaluation, draws the detections on some images beside the ground truth.

    Args:
        folder: where `<image id>.jpg` are written. Each evaluation replaces the pictures of the evaluation before.
            During training its pictures are also kept in `step-<step>/`.
        dataset: the evaluation set, in the schema of `hf_detr.data`.
        count: the number of pictures, spread evenly over the data set.
        threshold: the lowest score drawn.
        kept: how many step folders are kept at most: the first, the last, and others evenly between them.
    """

    def __init__(self, folder: str | Path, dataset: Dataset, count: int = 4, threshold: float = 0.3, kept: int = 12):
        self.folder = Path(folder)
        self.kept = kept
        self.is_training = False
        count = min(count, len(dataset))
        self.rows = undecoded(dataset).select([index * len(dataset) // count for index in range(count)])
        self.threshold = threshold

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to keep pictures. A resumed run deletes the pictures of steps that it will do again."""
        self.is_training = True
        if state.is_world_process_zero:
            for step, folder in step_folders(self.folder).items():
                if step > state.global_step:
                    shutil.rmtree(folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop keeping pictures by step: from now on the best model is evaluated, not the model of the last step."""
        self.is_training = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Draw the pictures."""
        if not state.is_world_process_zero:
            return
        files = self._draw(model, processing_class)
        if self.is_training:
            kept = self.folder / f"step-{state.global_step:06d}"
            kept.mkdir(exist_ok=True)
            for file in files:
                shutil.copyfile(file, kept / file.name)
            thin_out(step_folders(self.folder), self.kept)

    def _draw(self, model: Any, processing_class: Any) -> list[Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = category_names(self.rows)
        files: list[Path] = []
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
            files.append(self.folder / f"{row['image_id']}.jpg")
            replace_file(files[-1], partial(picture.save, format="JPEG"))
        model.train(was_training)
        return files


def step_folders(folder: Path) -> dict[int, Path]:
    """Return the step folders of `PredictionPictures` by step, in order."""
    steps = {int(path.name.removeprefix("step-")): path for path in folder.glob("step-[0-9]*") if path.is_dir()}
    return dict(sorted(steps.items()))


def thin_out(folders: dict[int, Path], kept: int) -> None:
    """Remove step folders until `kept` are left. The folder with the closest neighbours goes first; both ends stay."""
    steps = list(folders)
    while len(steps) > max(kept, 2):
        index = min(range(1, len(steps) - 1), key=lambda i: steps[i + 1] - steps[i - 1])
        shutil.rmtree(folders[steps.pop(index)])


def evaluation_line(metrics: dict[str, float], state: Any) -> str:
    """Return an evaluation in one line: where training is, the losses, AP, and the best AP so far."""
    losses = [row["loss"] for row in state.log_history if "loss" in row]
    values = {"loss": losses[-1]} if losses else {}
    names = {"eval_loss": "validation loss", "eval_AP": "AP", "eval_AP50": "AP50", "eval_AP75": "AP75"}
    values |= {label: metrics[name] for name, label in names.items() if name in metrics}
    line = f"step {state.global_step}/{state.max_steps}  epoch {state.epoch or 0:.1f}"
    line += "".join(f"  {label} {in_digits(value)}" for label, value in values.items())
    evaluated = [(row["eval_AP"], row["step"]) for row in state.log_history if row.get("eval_AP", -1) >= 0]
    if evaluated:
        best, step = max(evaluated, key=lambda pair: pair[0])
        line += "  (best)" if step == state.global_step else f"  (best AP {best:.3f} at step {step})"
    return line


PANELS = {
    "loss": {"loss": "training", "eval_loss": "validation"},
    "loss terms of the last layer": {"loss_ce": "classes", "loss_bbox": "box distance", "loss_giou": "box overlap"},
    "average precision": {"eval_AP": "AP", "eval_AP50": "AP50", "eval_AP75": "AP75"},
    "learning rate": {"learning_rate": "learning rate"},
    "share of objects whose query changed": {
        "matching_changed": "since the last epoch",
        "matching_changed_by_layer": "since the layer before",
    },
    "gradient norm before clipping": {"grad_norm": "gradient norm"},
}
"""The panels of `results.png`: to each title the columns of `results.csv` that it shows, with their names."""


def in_digits(value: float) -> str:
    """Return three decimals, or "n/a" for the -1 of COCO, which means that there was nothing to measure on."""
    return "n/a" if value == -1 else f"{value:.3f}"


def merge_by_step(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Merge the entries of a `TrainerState.log_history` that belong to the same step into one row."""
    rows: dict[float, dict[str, float]] = {}
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
    """Plot the curves of `PANELS` over the steps."""
    figure = Figure(figsize=(13, 7))
    # The margins are set by hand: a layout that measures every label takes seconds, at each evaluation.
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.07, top=0.95, wspace=0.18, hspace=0.32)
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for name, label in names.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=label)
        axes.set_title(title)
        axes.set_xlabel("step")
        top = axes.dataLim.ymax
        axes.set_ylim(0, 1.05 * top if 0 < top < float("inf") else 1)
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
    figure.savefig(path, format="png", dpi=100)
