"""Training: the Trainer subclass and what surrounds it; needs the `train` extra."""

from .arguments import HfDetrTrainingArguments
from .callbacks import PredictionPictures, ResultFiles
from .packed_labels import pack_labels, unpack_labels
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
