"""Evaluation by COCO's metrics. It needs the extra `train`."""

from hf_detr.evaluation.coco_metrics import CocoMetrics
from hf_detr.evaluation.tables import format_table

__all__ = ["CocoMetrics", "format_table"]
