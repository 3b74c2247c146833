"""Shows the result of `CocoMetrics` as text for a terminal or a log."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES

# For each number of the summary: its IoU thresholds, its object areas, and its detections an image.
_CONDITIONS = {
    "AP": ("0.50:0.95", "all", 100),
    "AP50": ("0.50", "all", 100),
    "AP75": ("0.75", "all", 100),
    "AP_small": ("0.50:0.95", "small", 100),
    "AP_medium": ("0.50:0.95", "medium", 100),
    "AP_large": ("0.50:0.95", "large", 100),
    "AR_1": ("0.50:0.95", "all", 1),
    "AR_10": ("0.50:0.95", "all", 10),
    "AR_100": ("0.50:0.95", "all", 100),
    "AR_small": ("0.50:0.95", "small", 100),
    "AR_medium": ("0.50:0.95", "medium", 100),
    "AR_large": ("0.50:0.95", "large", 100),
}


def format_value(value: float) -> str:
    """Return three decimals, or "n/a" for COCO's -1, which means that there was nothing to measure on."""
    return "n/a" if value < 0 else f"{value:.3f}"


def format_table(result: Mapping[str, Any]) -> str:
    """Return the twelve COCO numbers and the class table of a `CocoMetrics` result, as plain text without colours."""
    summary = _table("metric", "IoU", "area", "detections", "value")
    for name in SUMMARY_NAMES:
        iou, area, detections = _CONDITIONS[name]
        summary.add_row(name, iou, area, str(detections), format_value(result[name]))

    classes = _table("class", "objects", "AP", "AP50", "AR_100")
    for name, row in result["per_class"].items():
        numbers = (format_value(row[key]) for key in ("AP", "AP50", "AR_100"))
        classes.add_row(Text(name), str(row["num_objects"]), *numbers)

    text = StringIO()
    console = Console(file=text, width=100, color_system=None)
    console.print(summary, classes, sep="\n")
    return text.getvalue()


def _table(first: str, *others: str) -> Table:
    table = Table(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
