"""What a training run is asked for: the options of `hf-detr train`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is made of; None stands for the recipe's choice.

    Attributes:
        data: a folder of detection data, or "synthetic"; see `load_detection_data`.
        output: the model folder to write.
        preset: the model to build.
        model: a folder or repository to start from instead of a new model.
        epochs, steps, batch_size, learning_rate: see `training_arguments`.
        streaming: read the training data as they arrive; see `load_streaming_data`. Needs `steps`.
        image_size: the shortest edge of the images in pixels.
        config_overrides: other fields of the model's configuration, by name.
        augmentation: one of `AUGMENTATIONS`; it gives way to `PLAIN_AUGMENTATION` in the last epochs.
        seed: of everything random.
        ema: evaluate and save a moving average of the weights.
        patience: stop after this many evaluations in a row without a better AP; None trains to the end.
        report_to: experiment trackers among `TRACKERS`, separated by commas. TensorBoard's files are in
            `output/tensorboard`.
        pretrained_backbone: start from timm's pretrained weights.
        overwrite: replace a model that `output` already holds.
        resume: go on with an interrupted run in `output`; all else must be as it was.
        command: what the model card quotes.
    """

    data: str
    output: Path
    preset: str = "tiny"
    model: str | None = None
    epochs: int | None = None
    steps: int | None = None
    streaming: bool = False
    batch_size: int | None = None
    learning_rate: float | None = None
    image_size: int | None = None
    config_overrides: Mapping[str, Any] = field(default_factory=dict)
    augmentation: str | None = None
    seed: int = 0
    ema: bool = True
    patience: int | None = None
    report_to: str | None = None
    pretrained_backbone: bool | None = None
    overwrite: bool = False
    resume: bool = False
    command: str | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the unfinished run."""
        return self.output / "checkpoints"

    @property
    def pictures(self) -> Path:
        """The folder of detections beside ground truth."""
        return self.output / "pictures"

    @property
    def trackers(self) -> list[str]:
        """The names in `report_to`."""
        return [name.strip() for name in (self.report_to or "").split(",") if name.strip()]


def check_trackers(names: Sequence[str]) -> None:
    """Check that the experiment trackers are known and installed.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--report-to {name}: expected some of {', '.join(TRACKERS)}, separated by commas")
        if find_spec(name) is None:
            raise ValueError(f"--report-to {name}: {name} is not installed; pip install {name}")
