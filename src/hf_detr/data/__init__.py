"""Detection data sets: one schema, readers, augmentation, collation and the built-in synthetic set."""

from .augmentation import DetrAugmentation
from .coco import read_coco
from .collate import DetectionCollator
from .images import decode_image, undecoded
from .loading import load_detection_data
from .schema import DataError, category_names, data_fingerprint, detection_features
from .synthetic import make_synthetic_dataset

__all__ = [
    "DataError",
    "DetectionCollator",
    "DetrAugmentation",
    "category_names",
    "data_fingerprint",
    "decode_image",
    "detection_features",
    "load_detection_data",
    "make_synthetic_dataset",
    "read_coco",
    "undecoded",
]
