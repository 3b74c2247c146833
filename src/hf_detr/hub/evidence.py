"""The evidence for a model card, as plain data. The card claims nothing that is missing here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .papers import Paper
from .speed import Speed


@dataclass(frozen=True, kw_only=True)
class CardEvidence:
    """What is known about a model. `hf_detr.training.evidence` collects it from a trainer.

    Attributes:
        model_id: the repository or folder that the usage snippet loads, e.g. "someone/blood-cells".
        paper: the paper that describes the architecture.
        preset: the name of the preset that the model was built from.
        base_model: the repository or folder that training started from.
        class_names: the classes that the model finds, in the order of its labels.
        num_queries: the most objects it can find in an image.
        dataset_name: the name of the data set.
        dataset_fingerprint: identifies the exact data, see `data_fingerprint`.
        dataset_split: the split that `metrics` were measured on.
        dataset_id: the data set's repository on the Hub, if it has one.
        num_images: the number of images of each split.
        train_objects: the number of objects of each class in the training images.
        object_sides: the 10 % and 90 % quantiles of the sides of the training objects (square roots of the areas of
            their boxes), in pixels at the size that the model sees.
        input_size: the image processor's size, e.g. {"shortest_edge": 256, "longest_edge": 427}.
        metrics: a result of `CocoMetrics`, or None when the model was not evaluated.
        best_by: the metric by which the weights were chosen among the weights of several evaluations on the same
            split.
        speed: the speed of the forward pass, measured after training.
        recipe: the training settings that matter, as they should be shown.
        command: the exact command that trained the model.
        hardware: the machine in one line, see `hf_detr.machine.hardware_line`.
        versions: the version of each package, see `hf_detr.machine.package_versions`.
        samples: pictures with detections: the path inside the repository of each, and its caption.
        limitations: further sentences, beside the sentences that follow from the evidence.
        license: the licence of the weights, by its identifier on the Hub; "unknown" where nobody stated one.
    """

    model_id: str
    paper: Paper
    preset: str | None = None
    base_model: str | None = None
    class_names: Sequence[str] = ()
    num_queries: int | None = None
    dataset_name: str | None = None
    dataset_fingerprint: str | None = None
    dataset_split: str = "validation"
    dataset_id: str | None = None
    num_images: Mapping[str, int] = field(default_factory=dict)
    train_objects: Mapping[str, int] = field(default_factory=dict)
    object_sides: tuple[float, float] | None = None
    input_size: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    best_by: str | None = None
    speed: Speed | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    hardware: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    limitations: Sequence[str] = ()
    license: str = "unknown"
