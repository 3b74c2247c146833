"""Builds model cards. Every number in a card comes from the evidence that a run leaves behind."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.evaluation.tables import format_value

from ..modeling.configuration import HfDetrConfig
from .evidence import CardEvidence
from .limitations import limitations_of
from .papers import paper_of

CARD_NAME = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_TASK = "object-detection"
_LISTED_CLASSES = 20

_USE = """\
## Use

{requirement}

```python
{register}from transformers import pipeline

detector = pipeline("object-detection", model={model_id}{trust})
detections = detector("picture.jpg", threshold=0.5)
```

Each detection is a dict with `label`, `score` and `box` (`xmin`, `ymin`, `xmax`, `ymax` in pixels of the picture)."""


def build_model_card(evidence: CardEvidence) -> ModelCard:
    """Return the card of one model; `card.save("README.md")` writes it.

    The metrics also go into the card's `model-index`, without those that are undefined (COCO's -1).

    Raises:
        ValueError: a metric of COCO's summary is missing, or a sample picture lies outside the repository.
    """
    _check_metrics(evidence.metrics)
    _check_samples(evidence.samples)
    metrics = evidence.metrics
    name = _name(evidence.model_id)
    return ModelCard.from_template(
        _card_data(evidence, name),
        template_path=str(_TEMPLATE),
        name=name,
        summary=_summary(evidence),
        use=use_section(evidence.model_id, with_code=False),
        samples=[(path, caption) for path, caption in evidence.samples.items()],
        dataset_name=evidence.dataset_name or "data without a name",
        split=_images(evidence, evidence.dataset_split),
        summary_rows=[(key, format_value(metrics[key])) for key in SUMMARY_NAMES] if metrics else [],
        train_objects=bool(evidence.train_objects),
        class_rows=_class_rows(metrics["per_class"], evidence.train_objects) if metrics else [],
        speed=_speed(evidence),
        intended_use=_intended_use(evidence),
        limitations=limitations_of(evidence),
        dataset_rows=[*_training_rows(evidence)],
        command=evidence.command,
        recipe_rows=[(_cell(key), _cell(value)) for key, value in evidence.recipe.items()],
        license=license_section(evidence.license, evidence.base_model),
        paper=evidence.paper,
    )


def card_without_evidence(config: HfDetrConfig) -> ModelCard:
    """Return the card of a model of which only the configuration is known; the card says so."""
    return build_model_card(
        CardEvidence(
            model_id="model", paper=paper_of(config), class_names=config.class_names, num_queries=config.num_queries
        )
    )


def card_for_repository(
    card: ModelCard, repo: str, *, license: str | None = None, with_code: bool = False
) -> ModelCard:
    """Return a card with the name, usage snippet and licence of its repository; everything else stays as written.

    Args:
        card: the card of the model folder, perhaps changed by hand.
        repo: "owner/name".
        license: the licence of the weights, by its identifier on the Hub; None keeps what the card says.
        with_code: whether the repository holds the code of the model.
    """
    card = ModelCard(card.content)
    text, name = card.text, _name(repo)
    titled = card.data.get("model_name")
    if titled:
        text = re.sub(rf"^# {re.escape(titled)}$", f"# {name}", text, count=1, flags=re.MULTILINE)
        card.data["model_name"] = name
    text = _replace_section(text, use_section(repo, with_code))
    if license is not None:
        card.data["license"] = license
        base_model = card.data.get("base_model")
        text = _replace_section(text, license_section(license, base_model if isinstance(base_model, str) else None))
    card.text = text
    return card


def use_section(model_id: str, with_code: bool) -> str:
    """Return the section on how to load a model."""
    if with_code:
        requirement = (
            "The code of the model comes with it: read it before you run it. It needs torch, torchvision, "
            "transformers, timm and scipy. Where the `hf-detr` package is installed, `import hf_detr` does without "
            "that code."
        )
    else:
        requirement = "With the package installed (`pip install hf-detr`):"
    return _USE.format(
        requirement=requirement,
        register="" if with_code else "import hf_detr  # makes the model known to transformers\n",
        model_id=f'"{model_id}"',
        trust=", trust_remote_code=True" if with_code else "",
    )


def license_section(license: str, base_model: str | None) -> str:
    """Return the section on the licence of the weights."""
    stated = f"`{license}`."
    if license == "unknown":
        stated = "Nobody has stated one: ask whoever shares this model before using it."
    base = f", and so has the model that training started from, {_link(base_model)}" if base_model else ""
    return f"## Licence of the weights\n\n{stated} The images it was trained on have terms of their own{base}."


def _replace_section(text: str, section: str) -> str:
    """Put a section in the place of the one with the same heading; without that one, the text stays as it is."""
    heading = section.partition("\n")[0]
    old = re.compile(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    return old.sub(lambda _: f"{section}\n\n", text, count=1)


def _card_data(evidence: CardEvidence, name: str) -> ModelCardData:
    return ModelCardData(
        model_name=name,
        license=evidence.license,
        library_name="hf_detr",
        pipeline_tag=_TASK,
        tags=[_TASK, "vision", "detr", *([evidence.preset] if evidence.preset else [])],
        base_model=evidence.base_model if _is_on_the_hub(evidence.base_model) else None,
        datasets=[evidence.dataset_id] if evidence.dataset_id else None,
        # The Hub shows no entry without results, and rejects an empty list of them.
        eval_results=_eval_results(evidence) or None,
    )


def _eval_results(evidence: CardEvidence) -> list[EvalResult]:
    if evidence.metrics is None:
        return []
    name = evidence.dataset_name or "data without a name"
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Object detection",
            dataset_type=evidence.dataset_id or name,
            dataset_name=name,
            dataset_split=evidence.dataset_split,
            dataset_args={"fingerprint": evidence.dataset_fingerprint} if evidence.dataset_fingerprint else None,
            metric_type=key,
            metric_name=key,
            metric_value=round(evidence.metrics[key], 4),
        )
        for key in SUMMARY_NAMES
        if evidence.metrics[key] >= 0
    ]


def _summary(evidence: CardEvidence) -> str:
    preset = f", preset `{evidence.preset}`" if evidence.preset else ""
    origin = f", trained from {_link(evidence.base_model)}" if evidence.base_model else ""
    return (
        f"An object detector of the DETR family ({evidence.paper.name}{preset}){origin}. It predicts a set of boxes "
        "directly, without anchors or non-maximum suppression."
    )


def _intended_use(evidence: CardEvidence) -> str:
    names = evidence.class_names
    classes = f"{len(names)} classes" if len(names) > _LISTED_CLASSES else ", ".join(names)
    like = f" in images like the images of {evidence.dataset_name}" if evidence.dataset_name else ""
    what = f"Finding {classes}{like}" if names else f"Finding objects{like}"
    return (
        f"{what}, or a start for fine-tuning on other images. Measure it on your own before anyone relies on it; it "
        "must not be the only ground for a decision about a person."
    )


def _speed(evidence: CardEvidence) -> str | None:
    speed = evidence.speed
    if speed is None:
        return None
    where = f" of {evidence.hardware}" if evidence.hardware and speed.device.startswith("cpu") else ""
    return (
        f"Speed: {speed.images_per_second:.3g} images a second, one at a time: the forward pass alone on an image of "
        f"{speed.width} x {speed.height} pixels, in {speed.dtype} on {speed.device}{where} (median of "
        f"{speed.repetitions} passes)."
    )


def _training_rows(evidence: CardEvidence) -> Iterator[str]:
    if evidence.dataset_name:
        splits = ", ".join(_images(evidence, split) for split in evidence.num_images)
        yield f"Data: {evidence.dataset_name}" + (f" ({splits})" if splits else "")
    if evidence.dataset_fingerprint:
        splits = ", ".join(evidence.num_images) or "all splits"
        yield f"Fingerprint of the annotations ({splits}): `{evidence.dataset_fingerprint}`"
    if evidence.input_size:
        yield "Size: " + ", ".join(f"{name} {value}" for name, value in evidence.input_size.items()).replace("_", " ")
    if evidence.hardware:
        yield f"Hardware: {evidence.hardware}"
    if evidence.versions:
        yield "Versions: " + ", ".join(f"{package} {version}" for package, version in evidence.versions.items())


def _images(evidence: CardEvidence, split: str) -> str:
    count = evidence.num_images.get(split)
    return split if count is None else f"{split}: {count} image{'s' * (count != 1)}"


def _class_rows(
    per_class: Mapping[str, Mapping[str, float]], train_objects: Mapping[str, int]
) -> list[tuple[str, ...]]:
    return [
        (
            _cell(name),
            *([str(train_objects.get(name, 0))] if train_objects else []),
            str(row["num_objects"]),
            *(format_value(row[key]) for key in ("AP", "AP50", "AR_100")),
        )
        for name, row in per_class.items()
    ]


def _name(model_id: str) -> str:
    return model_id.rstrip("/").split("/")[-1]


def _is_on_the_hub(model: str | None) -> bool:
    return model is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).exists()


def _link(model: str) -> str:
    # Only the name of a folder is shown: the rest of its path would tell about somebody's machine.
    return (
        f"[{model}](https://huggingface.co/{model})" if _is_on_the_hub(model) else f"the local model `{_name(model)}`"
    )


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
