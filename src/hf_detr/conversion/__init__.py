"""Published checkpoints and transformers folders → our layout."""

from .key_tables import ConversionError, convert_state_dict
from .published import load_published_checkpoint

__all__ = ["ConversionError", "convert_state_dict", "load_published_checkpoint"]
