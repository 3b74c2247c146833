"""Model cards made of what a run leaves behind: every number in one comes from its caller."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.evaluation.tables import format_value

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_TASK = "object-detection"
_REPORTED_PACKAGES = ("hf-detr", "torch", "torchvision", "transformers", "timm")

_GENERAL_LIMITATIONS = (
    "It knows the classes it was trained on and no others; objects unlike those are missed or mislabelled.",
    "Scores are not calibrated probabilities: choose the threshold on your own data.",
)


@dataclass(frozen=True, kw_only=True)
class CardEvidence:
    """What is known about a trained model.

    Attributes:
        model_id: the repository or folder that the usage snippet loads, e.g. "someone/blood-cells".
        preset: the name of the preset that the model was built from.
        dataset_name: what the evaluation data is called.
        dataset_fingerprint: identifies the exact data, e.g. `datasets.Dataset._fingerprint` or a checksum.
        dataset_split: the split that `metrics` were measured on.
        dataset_id: the data set's repository on the Hub, if it has one.
        base_model: the repository that training started from, if any.
        metrics: a result of `CocoMetrics`, or None when the model was not evaluated.
        recipe: the training settings that matter, as they should be shown.
        command: the exact command that trained the model, or None when it was not trained here.
        hardware: one line, see `hardware_line`.
        versions: package to version, see `package_versions`.
        samples: pictures with detections, path inside the repository to caption.
        limitations: sentences beyond those that hold for every detector of this package.
        license: the licence of the weights, by its identifier on the Hub.
    """

    model_id: str
    preset: str
    dataset_name: str
    dataset_fingerprint: str
    dataset_split: str = "validation"
    dataset_id: str | None = None
    base_model: str | None = None
    metrics: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    hardware: str
    versions: Mapping[str, str]
    samples: Mapping[str, str] = field(default_factory=dict)
    limitations: Sequence[str] = ()
    license: str = "apache-2.0"


def build_model_card(evidence: CardEvidence) -> ModelCard:
    """The card of one model; `card.save("README.md")` writes it.

    The metrics also go into the card's `model-index`, without those that are undefined (COCO's -1).

    Raises:
        ValueError: a metric of COCO's summary is missing, or a sample picture lies outside the repository.
    """
    _check_metrics(evidence.metrics)
    _check_samples(evidence.samples)
    name = evidence.model_id.rstrip("/").split("/")[-1]
    metrics = evidence.metrics
    return ModelCard.from_template(
        _card_data(evidence, name),
        template_path=str(_TEMPLATE),
        name=name,
        model_id=evidence.model_id,
        summary=_summary(evidence),
        samples=evidence.samples.items(),
        dataset_name=evidence.dataset_name,
        dataset_split=evidence.dataset_split,
        fingerprint=evidence.dataset_fingerprint,
        summary_rows=[(key, format_value(metrics[key])) for key in SUMMARY_NAMES] if metrics else [],
        class_rows=_class_rows(metrics["per_class"]) if metrics else [],
        recipe_rows=[(_cell(key), _cell(value)) for key, value in evidence.recipe.items()],
        command=evidence.command,
        hardware=evidence.hardware,
        versions=", ".join(f"{package} {version}" for package, version in evidence.versions.items()),
        limitations=[*_GENERAL_LIMITATIONS, *evidence.limitations],
    )


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that decide what a model computes."""
    return {package: importlib.metadata.version(package) for package in _REPORTED_PACKAGES}


def hardware_line() -> str:
    """The accelerators of this machine, or its processor, in one line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), no accelerator"


def _card_data(evidence: CardEvidence, name: str) -> ModelCardData:
    return ModelCardData(
        model_name=name,
        license=evidence.license,
        library_name="hf_detr",
        pipeline_tag=_TASK,
        tags=[_TASK, "vision", "detr", evidence.preset],
        base_model=evidence.base_model,
        datasets=[evidence.dataset_id] if evidence.dataset_id else None,
        # The Hub shows no entry without results, and rejects an empty list of them.
        eval_results=_eval_results(evidence) or None,
    )


def _eval_results(evidence: CardEvidence) -> list[EvalResult]:
    if evidence.metrics is None:
        return []
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Object detection",
            dataset_type=evidence.dataset_id or evidence.dataset_name,
            dataset_name=evidence.dataset_name,
            dataset_split=evidence.dataset_split,
            dataset_args={"fingerprint": evidence.dataset_fingerprint},
            metric_type=key,
            metric_name=key,
            metric_value=round(evidence.metrics[key], 4),
        )
        for key in SUMMARY_NAMES
        if evidence.metrics[key] >= 0
    ]


def _summary(evidence: CardEvidence) -> str:
    origin = f", trained from [{evidence.base_model}](https://huggingface.co/{evidence.base_model})"
    return (
        f"An object detector of the DETR family (preset `{evidence.preset}`){origin if evidence.base_model else ''}. "
        f"It predicts a set of boxes directly, without anchors or non-maximum suppression."
    )


def _class_rows(per_class: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    return [
        (_cell(name), str(row["num_objects"]), *(format_value(row[key]) for key in ("AP", "AP50", "AR_100")))
        for name, row in per_class.items()
    ]


def _cell(value: Any) -> str:
    """Text that cannot break out of its cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _check_metrics(metrics: Mapping[str, Any] | None) -> None:
    missing = [] if metrics is None else [key for key in (*SUMMARY_NAMES, "per_class") if key not in metrics]
    if missing:
        raise ValueError(f"metrics must be a result of CocoMetrics, but {', '.join(missing)} are missing")


def _check_samples(samples: Mapping[str, str]) -> None:
    for path in samples:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"samples: {path} must be a path inside the model's repository")
