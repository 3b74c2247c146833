"""DETR-family object detectors for the Hugging Face ecosystem.

Importing this package makes the model type known to the Auto classes and pipelines of transformers. The classes
themselves, and what they import, are loaded when they are first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register

if TYPE_CHECKING:
    from .modeling.configuration import HfDetrConfig
    from .modeling.detection import HfDetrForObjectDetection
    from .modeling.detr import HfDetrModel
    from .modeling.presets import available_presets
    from .processing.image_processing import HfDetrImageProcessor, HfDetrImageProcessorPil

__version__ = "0.1.0"

_HOMES = {
    "HfDetrConfig": "modeling.configuration",
    "HfDetrForObjectDetection": "modeling.detection",
    "HfDetrImageProcessor": "processing.image_processing",
    "HfDetrImageProcessorPil": "processing.image_processing",
    "HfDetrModel": "modeling.detr",
    "available_presets": "modeling.presets",
}

__all__ = [
    "HfDetrConfig",
    "HfDetrForObjectDetection",
    "HfDetrImageProcessor",
    "HfDetrImageProcessorPil",
    "HfDetrModel",
    "available_presets",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


register(sys.modules[__name__])
