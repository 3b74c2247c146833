"""Detections of a model: on pictures in memory, or on any number of them from files, shards and streams."""

from .detection import detect
from .output import PredictionSummary
from .run import PredictionOptions, load_detector, run_prediction

__all__ = ["PredictionOptions", "PredictionSummary", "detect", "load_detector", "run_prediction"]
