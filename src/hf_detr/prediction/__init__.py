"""Runs a model on pictures in memory, or on any number of pictures from files, shards and streams."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .detection import detect
    from .options import PredictionOptions
    from .output import PredictionSummary
    from .run import load_detector, run_prediction

__all__ = ["PredictionOptions", "PredictionSummary", "detect", "load_detector", "run_prediction"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PredictionOptions": ".options",
        "PredictionSummary": ".output",
        "detect": ".detection",
        "load_detector": ".run",
        "run_prediction": ".run",
    },
)
