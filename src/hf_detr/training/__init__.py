"""Training: the Trainer subclass and what surrounds it; needs the `train` extra."""

from ..evaluation.packed_labels import pack_labels, unpack_labels
from .arguments import HfDetrTrainingArguments
from .callbacks import PredictionPictures, ResultFiles
from .parameter_groups import parameter_groups
from .trainer import HfDetrTrainer

__all__ = [
    "HfDetrTrainer",
    "HfDetrTrainingArguments",
    "PredictionPictures",
    "ResultFiles",
    "pack_labels",
    "parameter_groups",
    "unpack_labels",
]
