"""Detection data sets: one schema, readers, augmentation, collation and the built-in synthetic set."""

from .augmentation.named import (
    AUGMENTATIONS,
    PLAIN_AUGMENTATION,
    AugmentationOptions,
    StrongAugmentation,
    augmentation_options,
    build_augmentation,
)
from .augmentation.published import DetrAugmentation
from .collate import DetectionCollator
from .images import decode_image, undecoded
from .loading import load_detection_data, source_splits
from .readers.coco import read_coco
from .schema import (
    DataError,
    ReadOptions,
    SourceImage,
    SourceObject,
    SourceSplit,
    category_names,
    data_fingerprint,
    detection_features,
)
from .streaming import load_streaming_data
from .synthetic import make_synthetic_dataset

__all__ = [
    "AUGMENTATIONS",
    "PLAIN_AUGMENTATION",
    "AugmentationOptions",
    "DataError",
    "DetectionCollator",
    "DetrAugmentation",
    "ReadOptions",
    "SourceImage",
    "SourceObject",
    "SourceSplit",
    "StrongAugmentation",
    "augmentation_options",
    "build_augmentation",
    "category_names",
    "data_fingerprint",
    "decode_image",
    "detection_features",
    "load_detection_data",
    "load_streaming_data",
    "make_synthetic_dataset",
    "read_coco",
    "source_splits",
    "undecoded",
]
