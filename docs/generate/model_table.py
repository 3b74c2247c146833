"""Measures every preset and writes the measured values, beside the published ones, to the documentation.

    python docs/generate/model_table.py

It rewrites the parts of docs/models.md and README.md between the two markers, and all of model_cards/. Nothing is
downloaded and no weight is allocated: the models are built and run on PyTorch's meta device.
"""

from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from published_models import PUBLISHED, Paper, Published
from torch.utils.flop_counter import FlopCounterMode

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, available_presets
from hf_detr.modeling.presets import _PRESETS, get_preset

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- written by docs/generate/model_table.py: begin -->", "<!-- end -->"
SIZES = ((800, 1333), (800, 1066))  # the largest image of the published recipe, and a photograph of 4:3
LICENCE = "Apache-2.0"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def build(preset: str) -> HfDetrForObjectDetection:
    """Return the model without memory for its weights."""
    with torch.device("meta"):
        return HfDetrForObjectDetection(HfDetrConfig.from_preset(preset)).eval()


def parameters(model: HfDetrForObjectDetection) -> tuple[int, int]:
    """Return the number of all and of trained parameters. Frozen batch norms have buffers and no parameters."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def gflops(model: HfDetrForObjectDetection, height: int, width: int) -> float | None:
    """Return the 10^9 multiply-adds of one image in convolutions and matrix products, without deformable sampling.

    None where the backbone refuses images of this size.
    """
    model.requires_grad_(False)  # the counter follows gradients where there are any
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, height, width, device="meta"))
    except AssertionError as error:
        print(f"{model.config.backbone} at {height} x {width}: {error}")
        return None
    return counter.get_total_flops() / 2e9  # the counter takes a multiply-add for two


def measure(preset: str) -> dict[str, Any]:
    """Return the parameters of a preset, and its GFLOPs at each of `SIZES`."""
    model = build(preset)
    total, trained = parameters(model)  # before the counter freezes everything
    return {"parameters": total, "trained": trained, "gflops": [gflops(model, *size) for size in SIZES]}


def differences(preset: str) -> dict[str, Any]:
    """Return the fields in which a preset differs from its parent, or from the defaults."""
    parent = _PRESETS[preset].get("parent")
    base = get_preset(parent) if parent else {}
    return {
        name: value
        for name, value in get_preset(preset).items()
        if base.get(name, ...) != value and name != "label2id"
    }


def show(name: str, value: Any) -> str:
    """Return a field and its value in one line."""
    if name == "id2label":
        return f"{len(value)} classes (the ids of COCO)" if value else "no classes of its own"
    return f"`{name}={value!r}`"


def show_gflops(value: float | None) -> str:
    return "size not taken" if value is None else f"{value:.1f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---:" if column.startswith(("parameters", "trained", "GFLOPs", "AP")) else "---" for column in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def measured_row(preset: str, measured: dict[str, Any]) -> list[str]:
    published = PUBLISHED.get(preset)
    row = [f"[`{preset}`](../model_cards/{preset}.md)"]
    if published is None:
        row += ["ours", "not published", ""]
    else:
        stated = [f"{published.parameters} M"] if published.parameters else []
        stated += [f"{published.gflops} G"] if published.gflops else []
        row += [
            f"[{published.paper.name}]({published.paper.url})",
            ", ".join(f"{ap} ({epochs})" for epochs, ap in published.results),
            ", ".join(stated) or "not stated",
        ]
    return [*row, f"{measured['parameters']:,}", f"{measured['trained']:,}", *map(show_gflops, measured["gflops"])]


def weights_row(preset: str, published: Published) -> list[str]:
    name = published.weights.rsplit("/", 1)[-1]
    label = f"`{name}`" if name.endswith(".pth") else published.weights_note or "Google Drive"
    if "`" in published.weights_note:
        label = f"folder of {published.paper.name}: {published.weights_note}"
    hub = f"[`{published.hub}`](https://huggingface.co/{published.hub})" if published.hub else "none found"
    link = f"[{label}]({published.weights})"
    return [f"`{preset}`", link, hub, LICENCE]


def render_tables(measurements: dict[str, dict[str, Any]]) -> str:
    """Return the generated part of docs/models.md."""
    sizes = [f"GFLOPs {height} x {width}" for height, width in SIZES]
    header = ["preset", "paper", "AP (epochs)", "stated there", "parameters", "trained", *sizes]
    results = table(header, [measured_row(preset, measured) for preset, measured in measurements.items()])
    rows = [
        [
            f"`{preset}`",
            f"`{_PRESETS[preset].get('parent', '(defaults)')}`",
            ", ".join(show(name, value) for name, value in differences(preset).items()),
        ]
        for preset in measurements
    ]
    family = table(["preset", "parent", "what differs"], rows)
    weights = table(
        ["preset", "published checkpoint", "in the layout of transformers, on the Hub", "licence"],
        [weights_row(preset, published) for preset, published in PUBLISHED.items()],
    )
    papers = {published.paper.name: published.paper for published in PUBLISHED.values()}
    quirks = "\n".join(render_paper(paper) for paper in papers.values())
    return "\n\n".join(
        [
            "## Results and sizes",
            results,
            "## The family, as differences",
            family,
            "## Published weights",
            weights,
            "## Papers, and the quirk of each",
            quirks,
        ]
    )


def render_paper(paper: Paper) -> str:
    authors = ", ".join(paper.authors)
    return (
        f"- **{paper.name}**: {authors}. [{paper.title}]({paper.url}). {paper.venue}, {paper.year}, "
        f"arXiv:{paper.arxiv}. [Code]({paper.repository}). *{paper.quirk}*"
    )


def show_backbone(config: HfDetrConfig) -> str:
    """Return the name of a backbone, with everything unusual about it."""
    channels = (config.backbone_kwargs or {}).get("channels")
    narrow = f", {' / '.join(map(str, channels))} channels" if channels else ""
    return config.backbone + narrow + (", last stage dilated" if config.dilation else "")


def render_card(preset: str, measured: dict[str, Any]) -> str:
    """Return the card of a preset."""
    published, config = PUBLISHED.get(preset), HfDetrConfig.from_preset(preset)
    facts = [
        ["backbone", show_backbone(config)],
        ["queries", str(config.num_queries)],
        ["feature levels", str(config.num_feature_levels)],
        ["parameters", f"{measured['parameters']:,} ({measured['trained']:,} trained)"],
        *([f"GFLOPs at {h} x {w}", show_gflops(g)] for (h, w), g in zip(SIZES, measured["gflops"], strict=True)),
    ]
    name, address = ("tiny_card", None) if published is None else ("preset_card", published.weights)
    return TEMPLATES.get_template(f"{name}.md.jinja").render(
        preset=preset,
        config=config,
        facts=table(["", "value"], facts),
        published=published,
        paper=(published or PUBLISHED["dino-resnet-50-4scale"]).paper,
        checkpoint=Path(address).name if address and address.endswith(".pth") else "checkpoint.pth",
        licence=LICENCE,
    )


def render_summary(measurements: dict[str, dict[str, Any]]) -> str:
    """Return the generated part of README.md."""
    rows = []
    for preset, measured in measurements.items():
        published = PUBLISHED.get(preset)
        epochs, ap = max(published.results, key=lambda result: result[1]) if published else ("", "")
        paper = (
            f"[{published.paper.citation}]({published.paper.url})" if published else "ours, for training from scratch"
        )
        rows.append([f"`{preset}`", paper, str(ap), str(epochs), f"{measured['parameters'] / 1e6:.1f}"])
    return table(["preset", "paper", "AP as published", "epochs", "parameters (M)"], rows)


def write_between_markers(page: Path, text: str) -> None:
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END, maxsplit=1)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    measurements = {}
    for preset in available_presets():
        measurements[preset] = measure(preset)
        print(preset, measurements[preset], flush=True)
    write_between_markers(ROOT / "docs" / "models.md", render_tables(measurements))
    write_between_markers(ROOT / "README.md", render_summary(measurements))
    for preset, measured in measurements.items():
        (ROOT / "model_cards" / f"{preset}.md").write_text(render_card(preset, measured), encoding="utf-8")


if __name__ == "__main__":
    main()
