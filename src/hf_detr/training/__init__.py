"""The training of models: a subclass of `Trainer` and its parts. It needs the extra `train`."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from ..evaluation.packed_labels import pack_labels, unpack_labels
    from .arguments import HfDetrTrainingArguments
    from .callbacks import PredictionPictures, ResultFiles
    from .optimizer_groups import parameter_groups
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "HfDetrTrainer": ".trainer",
        "HfDetrTrainingArguments": ".arguments",
        "PredictionPictures": ".callbacks",
        "ResultFiles": ".callbacks",
        "pack_labels": "..evaluation.packed_labels",
        "parameter_groups": ".optimizer_groups",
        "unpack_labels": "..evaluation.packed_labels",
    },
)
