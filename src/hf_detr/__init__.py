"""DETR-family object detectors for the Hugging Face ecosystem.

Importing this package registers its classes with the Auto classes and pipelines of transformers.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForObjectDetection
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

from .modeling.configuration import HfDetrConfig
from .modeling.detr import HfDetrForObjectDetection, HfDetrModel
from .modeling.image_processing import HfDetrImageProcessor, HfDetrImageProcessorPil
from .modeling.presets import available_presets

__version__ = "0.1.0"

AutoConfig.register(HfDetrConfig.model_type, HfDetrConfig)
AutoModel.register(HfDetrConfig, HfDetrModel)
AutoModelForObjectDetection.register(HfDetrConfig, HfDetrForObjectDetection)
AutoImageProcessor.register(
    HfDetrConfig, image_processor_classes={"torchvision": HfDetrImageProcessor, "pil": HfDetrImageProcessorPil}
)
MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES[HfDetrConfig.model_type] = HfDetrForObjectDetection.__name__

__all__ = [
    "HfDetrConfig",
    "HfDetrForObjectDetection",
    "HfDetrImageProcessor",
    "HfDetrImageProcessorPil",
    "HfDetrModel",
    "available_presets",
]
