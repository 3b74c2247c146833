"""The options of a training run and of an evaluation, declared once for Python, `hf-detr train` and `hf-detr eval`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_detr.command_line import option
from hf_detr.data.options import ReadOptions

from .settings import parse_settings

DATA_HELP = "The data: a folder, a data set on the Hub, or the word 'synthetic' for the built-in pictures."
MODEL_HELP = "The model: a folder, or a repository on the Hub."
SEED_HELP = "The number that the built-in pictures and the split of the data are drawn with."
BATCH_HELP = "The number of images in a batch of each process."

DEFAULT_PRESET = "tiny"
TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True, kw_only=True)
class RunOptions(ReadOptions):
    """The options of a training run. Where a value is None, the recipe chooses one (`training_arguments`).

    TensorBoard's files are in `output/tensorboard`. `command` is the command line that the model card quotes.
    """

    data: str = option(DATA_HELP)
    output: Path = option("The model folder to write.", default=Path("my-detector"))
    preset: str | None = option(
        "The model to build; `hf-detr presets` lists them. Without it and without --model, 'tiny' is built.",
        default=None,
    )
    model: str | None = option(
        "Start from this model folder or repository on the Hub instead of a new model.", default=None
    )
    epochs: int | None = option("The number of passes over the training images.", default=None, min=1)
    steps: int | None = option("The number of optimizer steps. It takes the place of the epochs.", default=None, min=1)
    streaming: bool = option(
        "Read the training images as they arrive. A stream has no length, so --steps is needed.",
        "--streaming",
        default=False,
    )
    batch_size: int | None = option(BATCH_HELP, default=None, min=1)
    image_size: int | None = option("The shortest edge of the images, in pixels.", default=None, min=32)
    config_overrides: Mapping[str, Any] = option(
        "Set a field of the model's configuration. The option may be repeated.",
        "--set",
        default_factory=dict,
        typed=list[str],
        parse=parse_settings,
        metavar="NAME=VALUE",
    )
    learning_rate: float | None = option("The highest learning rate of the run.", default=None)
    augmentation: str | None = option(
        "How pictures are varied: none, flip, light, published, or strong, which also combines pictures. Without it, "
        "the preset and the length of the run decide. The last epochs see plainer pictures.",
        default=None,
    )
    seed: int = option("The number that everything random is drawn with.", default=0, min=0)
    pretrained_backbone: bool | None = option(
        "Start from the backbone weights that timm offers, or not. Without it, only the small presets do not.",
        "--pretrained-backbone/--no-pretrained-backbone",
        default=None,
    )
    ema: bool = option("Evaluate and save a moving average of the weights, or the last weights.", default=True)
    patience: int | None = option(
        "Stop after this many evaluations in a row without a better AP.", default=None, min=1
    )
    report_to: str | None = option(
        f"Also log to these experiment trackers, separated by commas: {', '.join(TRACKERS)}.", default=None
    )
    overwrite: bool = option("Replace the model that the output folder holds.", "--overwrite", default=False)
    resume: bool = option(
        "Go on with the interrupted run in the output folder. All other options must be as they were.",
        "--resume",
        default=False,
    )
    command: str | None = None

    @property
    def preset_or_default(self) -> str:
        """The preset of the model and of the recipe."""
        return DEFAULT_PRESET if self.preset is None else self.preset

    @property
    def checkpoints(self) -> Path:
        """The folder of the unfinished run."""
        return self.output / "checkpoints"

    @property
    def unfinished(self) -> Path:
        """The folder that gets the model when an error ends the run."""
        return self.output / "unfinished"

    @property
    def pictures(self) -> Path:
        """The folder of detections beside ground truth."""
        return self.output / "pictures"

    @property
    def trackers(self) -> list[str]:
        """The names in `report_to`."""
        return [name.strip() for name in (self.report_to or "").split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """The options of `hf-detr train`: a run, and the repository to which its model is pushed."""

    push_to_hub: str | None = option(
        "Push the finished model to this repository on the Hub, given as OWNER/NAME.", default=None, metavar="REPO"
    )
    private: bool = option("Make the repository of the model private.", "--private", default=False)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ReadOptions):
    """The options of `hf-detr eval`."""

    model: str = option(MODEL_HELP)
    data: str = option(DATA_HELP)
    split: str = option("The split of the data to evaluate on.", default="validation")
    output: Path | None = option("A JSON file that the metrics are written to as well.", default=None)
    batch_size: int = option(BATCH_HELP, default=4, min=1)
    seed: int = option(SEED_HELP, default=0, min=0)


def check_trackers(names: Sequence[str]) -> None:
    """Check that the experiment trackers are known and installed.

    Raises:
        ValueError: a tracker is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--report-to {name}: expected some of {', '.join(TRACKERS)}, separated by commas")
        if find_spec(name) is None:
            raise ValueError(f"--report-to {name}: {name} is not installed; pip install {name}")
