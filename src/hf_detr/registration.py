"""Makes the model type known to the Auto classes and pipelines of transformers, if possible without loading either.

transformers resolves its own model types by name: tables of strings, and the module `transformers.models.<type>` that
has the classes. Entries that are made before the Auto classes are built from the tables cost nothing until they are
used. Importing the tables takes half a second, so the entries wait until somebody else imports them. Where the Auto
classes are there already, the classes themselves have to be registered, with all that they import.
"""

import sys
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from .modeling.foreign import FOREIGN

MODEL_TYPE = "hf_detr"
CONFIG = "HfDetrConfig"
MODELS = {"MODEL_MAPPING_NAMES": "HfDetrModel", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES": "HfDetrForObjectDetection"}
IMAGE_PROCESSORS = {"torchvision": "HfDetrImageProcessor", "pil": "HfDetrImageProcessorPil"}
_AUTO = "transformers.models.auto"
_BUILT_FROM_TABLES = tuple(f"{_AUTO}.{kind}_auto" for kind in ("configuration", "modeling", "image_processing"))


def register(package: ModuleType) -> None:
    """Register the classes of `package`, which gives them as attributes, on demand."""
    FOREIGN.translate_config, FOREIGN.load = translate_foreign_config, load_converted
    register_post_import_hook(keep_freed_memory, f"{package.__name__}.processing.image_processing")
    register_post_import_hook(tell_sahi_of_sigmoids, "sahi.models.huggingface")
    if any(name in sys.modules for name in _BUILT_FROM_TABLES):
        register_classes(package)
    else:
        register_names(package)


def translate_foreign_config(written: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Translate a configuration by `hf_detr.conversion`, which is loaded when it is first used."""
    from .conversion import translate_config

    return translate_config(written, overrides)


def load_converted(*args: Any, **kwargs: Any) -> Any | None:
    """Load weights by `hf_detr.conversion`, which is loaded when it is first used."""
    from .conversion import load_foreign, load_other_classes

    loaded = load_other_classes(*args, **kwargs)
    return load_foreign(*args, **kwargs) if loaded is None else loaded


def register_names(package: ModuleType) -> None:
    """Have the names entered into the tables of transformers, before anything is built from them."""
    register_post_import_hook(enter_names, f"{_AUTO}.auto_mappings")
    register_post_import_hook(enter_models, f"{_AUTO}.modeling_auto")
    sys.modules[f"transformers.models.{MODEL_TYPE}"] = package


def enter_names(tables: ModuleType) -> None:
    """Enter the configuration and the image processors."""
    tables.CONFIG_MAPPING_NAMES[MODEL_TYPE] = CONFIG
    tables.IMAGE_PROCESSOR_MAPPING_NAMES[MODEL_TYPE] = dict(IMAGE_PROCESSORS)


def enter_models(tables: ModuleType) -> None:
    """Enter the models."""
    for table, name in MODELS.items():
        getattr(tables, table)[MODEL_TYPE] = name


def keep_freed_memory(image_processing: ModuleType) -> None:
    """Let the image processors of this package use memory again that earlier images have freed."""
    from .acceleration.heap import freed_memory_is_kept

    for name in IMAGE_PROCESSORS.values():
        getattr(image_processing, name).allocation = staticmethod(freed_memory_is_kept)


def tell_sahi_of_sigmoids(sahi: ModuleType) -> None:
    """Let SAHI ask the configuration of our models whether their scores are sigmoids.

    SAHI decides this by the name of the model's class, in the property `_uses_sigmoid_cls` of its detector, and would
    take the softmax of a sigmoid model. Models of other types are left to SAHI. Where SAHI has no such property,
    nothing is changed.
    """
    detector: Any = getattr(sahi, "HuggingfaceDetectionModel", None)
    by_name = getattr(detector, "_uses_sigmoid_cls", None)
    if not isinstance(by_name, property):
        return

    def uses_sigmoid_cls(self: Any) -> bool:
        config: Any = getattr(self.model, "config", None)
        if getattr(config, "model_type", None) == MODEL_TYPE:
            return config.classification != "softmax"
        return by_name.__get__(self)

    detector._uses_sigmoid_cls = property(uses_sigmoid_cls)


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
