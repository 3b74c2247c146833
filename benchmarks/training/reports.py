"""Turns the records of runs into tables, figures and sections of docs/benchmarks.md."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from runs import Record

from hf_detr.benchmarking.report import table, write_section  # noqa: F401 - scripts take all of a report from here

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"


def group_by(records: Iterable[Record], setting: str, order: Iterable[str] | None = None) -> dict[str, list[Record]]:
    """Return the records with the same value of a setting together, in the order of the values given."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["settings"][setting], []).append(record)
    return {value: groups[value] for value in order or groups if value in groups}


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean of values with the lowest and the highest; a dash where COCO defines no value (-1)."""
    if min(values) < 0:
        return "-"
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def conditions(records: Sequence[Record]) -> str:
    """Return the conditions under which runs were made; where these differ, all are named."""

    def all_of(values: Iterable[Any]) -> str:
        return " / ".join(sorted({str(value) for value in values}))

    settings = [record["settings"] for record in records]
    budget = all_of(round(item["budget_seconds"] / 60, 2) for item in settings)
    versions = [", ".join(f"{name} {number}" for name, number in record["versions"].items()) for record in records]
    return (
        f"{all_of(record['train_images'] for record in records)} training and "
        f"{all_of(record['validation_images'] for record in records)} validation images (fingerprint "
        f"{all_of(record['fingerprint'] for record in records)}), shortest edge "
        f"{all_of(item['image_size'] for item in settings)} pixels. {budget} minutes of training at the speed "
        f"of {all_of(item['threads'] for item in settings)} threads. "
        f"{all_of(record['machine'] for record in records)}. "
        f"{all_of(versions)}. Mean of the runs (lowest to highest)."
    )


def plot_curves(groups: Mapping[str, Sequence[Record]], metrics: Mapping[str, str], path: Path) -> None:
    """Plot metrics over the minutes of training, one panel each: a line per run, a colour per group.

    Args:
        groups: the records by label.
        metrics: the titles of the panels by the names of the metrics in the records.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(4.6 * len(metrics), 3.9), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True):
        for colour, (label, records) in enumerate(groups.items()):
            for number, record in enumerate(records):
                minutes = [0.0, *(point["seconds"] / 60 for point in record["curve"])]
                values = [0.0, *(max(0.0, point[metric]) for point in record["curve"])]
                axes.plot(
                    minutes, values, marker=".", linewidth=1.2, color=f"C{colour}", label=None if number else label
                )
        axes.set(title=title, xlabel="minutes of training", ylim=(0, None), xlim=(0, None))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(groups), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
