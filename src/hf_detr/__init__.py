"""DETR-family object detectors for the Hugging Face ecosystem.

Importing this package makes the model type known to the Auto classes and pipelines of transformers. The classes
themselves, and what they import, are loaded when they are first used.
"""

import sys
from typing import TYPE_CHECKING

from .acceleration.primitive_caches import bound_primitive_caches
from .lazy import lazy_names
from .registration import register

if TYPE_CHECKING:
    from .acceleration.inference import optimize_for_inference
    from .modeling.configuration import HfDetrConfig
    from .modeling.detection import HfDetrForObjectDetection
    from .modeling.detr import HfDetrModel
    from .modeling.presets import available_presets
    from .processing.image_processing import HfDetrImageProcessor, HfDetrImageProcessorPil

__version__ = "0.1.0"

__all__ = [
    "HfDetrConfig",
    "HfDetrForObjectDetection",
    "HfDetrImageProcessor",
    "HfDetrImageProcessorPil",
    "HfDetrModel",
    "available_presets",
    "optimize_for_inference",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "HfDetrConfig": ".modeling.configuration",
        "HfDetrForObjectDetection": ".modeling.detection",
        "HfDetrImageProcessor": ".processing.image_processing",
        "HfDetrImageProcessorPil": ".processing.image_processing",
        "HfDetrModel": ".modeling.detr",
        "available_presets": ".modeling.presets",
        "optimize_for_inference": ".acceleration.inference",
    },
)

bound_primitive_caches()
register(sys.modules[__name__])
