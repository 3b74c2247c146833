"""Converts published checkpoints, folders that transformers' own models saved, and checkpoints of other classes."""

from .class_rows import load_other_classes
from .key_tables import ConversionError, convert_state_dict
from .published import load_published_checkpoint
from .transformers_configs import translate_config
from .transformers_folders import load_foreign

__all__ = [
    "ConversionError",
    "convert_state_dict",
    "load_foreign",
    "load_other_classes",
    "load_published_checkpoint",
    "translate_config",
]
