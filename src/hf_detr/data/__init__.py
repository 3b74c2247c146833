"""Detection data sets: their one schema, readers, augmentation, collation and the built-in synthetic set."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
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
    from .options import ReadOptions
    from .readers.coco import read_coco
    from .schema import (
        DataError,
        SourceImage,
        SourceObject,
        SourceSplit,
        category_ids,
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
    "category_ids",
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AUGMENTATIONS": ".augmentation.named",
        "PLAIN_AUGMENTATION": ".augmentation.named",
        "AugmentationOptions": ".augmentation.named",
        "DataError": ".schema",
        "DetectionCollator": ".collate",
        "DetrAugmentation": ".augmentation.published",
        "ReadOptions": ".options",
        "SourceImage": ".schema",
        "SourceObject": ".schema",
        "SourceSplit": ".schema",
        "StrongAugmentation": ".augmentation.named",
        "augmentation_options": ".augmentation.named",
        "build_augmentation": ".augmentation.named",
        "category_ids": ".schema",
        "category_names": ".schema",
        "data_fingerprint": ".schema",
        "decode_image": ".images",
        "detection_features": ".schema",
        "load_detection_data": ".loading",
        "load_streaming_data": ".streaming",
        "make_synthetic_dataset": ".synthetic",
        "read_coco": ".readers.coco",
        "source_splits": ".loading",
        "undecoded": ".images",
    },
)
