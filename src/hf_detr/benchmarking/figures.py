"""Draws figures of the records of suites."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_detr.files import replace_file

from .report import Record, curves

OURS, OTHERS = "#1f6fb2", "#b9bec4"


def plot(record: Record, path: Path) -> None:
    """Draw a record: curves where something varies, else bars of the ratios. Nothing is drawn of an empty record."""
    figure = plot_curves(record) if curves(record) else plot_ratios(record)
    if figure is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda beside: figure.savefig(beside, dpi=100, format="png"))


def plot_ratios(record: Record) -> Figure | None:
    """Draw how many times as fast as its baseline each contestant is, with quartiles, a panel for each comparison."""
    panels = [
        (comparison, [entry for entry in comparison["contestants"] if "times_as_fast" in entry])
        for comparison in record["comparisons"]
    ]
    panels = [(comparison, entries) for comparison, entries in panels if entries]
    if not panels:
        return None
    heights = [0.7 + 0.28 * len(entries) for _, entries in panels]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for (comparison, entries), panel in zip(panels, axes, strict=True):
        draw_bars(panel, comparison, entries)
    axes[-1].set_xlabel("times as fast as the baseline (median, quartiles)")
    return figure


def draw_bars(panel: Axes, comparison: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """Draw one bar for each contestant, ours in colour."""
    ratios = [entry["times_as_fast"] for entry in entries]
    spread = [
        [max(0.0, ratio - entry["times_as_fast_quartiles"][0]) for ratio, entry in zip(ratios, entries, strict=True)],
        [max(0.0, entry["times_as_fast_quartiles"][1] - ratio) for ratio, entry in zip(ratios, entries, strict=True)],
    ]
    colours = [OURS if entry["name"].startswith("hf_detr") else OTHERS for entry in entries]
    panel.barh([entry["name"] for entry in entries], ratios, xerr=spread, color=colours, height=0.7)
    for index, (ratio, error) in enumerate(zip(ratios, spread[1], strict=True)):
        panel.text(ratio + error, index, f"  {ratio:.2f}", va="center", fontsize=8)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.margins(x=0.12)
    panel.invert_yaxis()
    panel.tick_params(labelsize=8)
    panel.set_title(comparison["name"], fontsize=9, loc="left")


def plot_curves(record: Record) -> Figure:
    """Draw time, and memory where it was measured, against what varies, on logarithmic axes."""
    found = curves(record)
    axes_names = list(dict.fromkeys(axis for axis, _ in found))
    figure = Figure(figsize=(4.4 * len(axes_names), 7), layout="constrained")
    panels = figure.subplots(2, len(axes_names), squeeze=False)
    labels = list(dict.fromkeys(label for _, label in found))
    for (axis, label), points in found.items():
        time, memory = panels[:, axes_names.index(axis)]
        values = [value for value, _ in points]
        style = "-" if label.startswith("hf_detr") else "--"
        colour = f"C{labels.index(label)}"
        time.loglog(values, [entry["seconds"] for _, entry in points], style, marker=".", color=colour, label=label)
        held = [
            (value, entry["peak_memory_mib"]["process"]) for value, entry in points if entry.get("peak_memory_mib")
        ]
        if held:
            memory.loglog(*zip(*held, strict=True), style, marker=".", color=colour)
    for column, axis in enumerate(axes_names):
        for panel, unit in zip(panels[:, column], ("seconds", "MiB in the process"), strict=True):
            panel.set(xlabel=axis, ylabel=unit)
            panel.grid(alpha=0.3, which="both")
            panel.set_visible(bool(panel.lines))
    lines = {line.get_label(): line for panel in panels[0] for line in panel.lines}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(3, len(lines)), fontsize=8)
    return figure
