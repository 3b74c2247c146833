"""Makes the model type known to the Auto classes and pipelines of transformers, if possible without loading it.

transformers resolves its own model types by name: tables of strings, and the module `transformers.models.<type>` that
has the classes. Entries made before the Auto classes are built from the tables cost nothing until they are used.
Afterwards classes have to be registered, with all that they import.
"""

import sys
from importlib import import_module
from types import ModuleType

MODEL_TYPE = "hf_detr"
CONFIG = "HfDetrConfig"
MODELS = {"MODEL_MAPPING_NAMES": "HfDetrModel", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES": "HfDetrForObjectDetection"}
IMAGE_PROCESSORS = {"torchvision": "HfDetrImageProcessor", "pil": "HfDetrImageProcessorPil"}
_AUTO = "transformers.models.auto"
_BUILT_FROM_TABLES = (f"{_AUTO}.modeling_auto", f"{_AUTO}.image_processing_auto")


def register(package: ModuleType) -> None:
    """Register the classes of `package`, which gives them as attributes, on demand."""
    if any(name in sys.modules for name in _BUILT_FROM_TABLES):
        register_classes(package)
    else:
        register_names(package)


def register_names(package: ModuleType) -> None:
    """Enter the names into the tables of transformers, before anything is built from them."""
    tables = import_module(f"{_AUTO}.auto_mappings")
    tables.CONFIG_MAPPING_NAMES[MODEL_TYPE] = CONFIG
    tables.IMAGE_PROCESSOR_MAPPING_NAMES[MODEL_TYPE] = dict(IMAGE_PROCESSORS)
    models = import_module(f"{_AUTO}.modeling_auto")
    for table, name in MODELS.items():
        getattr(models, table)[MODEL_TYPE] = name
    sys.modules[f"transformers.models.{MODEL_TYPE}"] = package


def register_classes(package: ModuleType) -> None:
    """Register the classes themselves."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForObjectDetection
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as DETECTORS

    config = getattr(package, CONFIG)
    AutoConfig.register(MODEL_TYPE, config)
    AutoModel.register(config, package.HfDetrModel)
    AutoModelForObjectDetection.register(config, package.HfDetrForObjectDetection)
    classes = {backend: getattr(package, name) for backend, name in IMAGE_PROCESSORS.items()}
    AutoImageProcessor.register(config, image_processor_classes=classes)
    DETECTORS[MODEL_TYPE] = "HfDetrForObjectDetection"  # the pipeline looks here
