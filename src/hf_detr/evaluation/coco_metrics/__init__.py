"""COCO metrics in the folder layout that `evaluate.load` expects: name/name.py."""

from .coco_metrics import SUMMARY_NAMES, CocoMetrics

__all__ = ["SUMMARY_NAMES", "CocoMetrics"]
