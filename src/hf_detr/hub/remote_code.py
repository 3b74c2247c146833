"""Saves models with the code they run on, so that they load without this package (`trust_remote_code=True`)."""

import os
import shutil
from inspect import getfile
from pathlib import Path
from typing import Any

from transformers import BaseImageProcessor
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from ..files import read_json, write_json
from ..modeling import configuration, detection, detr
from ..modeling.pretrained import HfDetrPreTrainedModel
from ..processing import image_processing

_ENTRY_FILES = [Path(getfile(module)) for module in (configuration, detection, detr, image_processing)]
_MODEL_AUTO_MAP = {
    "AutoConfig": "configuration.HfDetrConfig",
    "AutoModel": "detr.HfDetrModel",
    "AutoModelForObjectDetection": "detection.HfDetrForObjectDetection",
}
_PROCESSOR_AUTO_MAP = {
    "AutoImageProcessor": {
        "torchvision": "image_processing.HfDetrImageProcessor",
        "pil": "image_processing.HfDetrImageProcessorPil",
    }
}


def save_with_code(
    model: HfDetrPreTrainedModel, folder: str | os.PathLike, processor: BaseImageProcessor | None = None
) -> list[Path]:
    """Save a model, its image processor and the files of `hf_detr.modeling` and `hf_detr.processing` that they run on.

    The folder loads as any other where this package is installed. Elsewhere the Auto classes and pipelines of
    transformers load it with `trust_remote_code=True`; torch, transformers, timm and scipy are needed there.

    Args:
        model: the model.
        folder: the folder to save to, made if need be. Other files in it are kept.
        processor: the image processor of the model.

    Returns:
        The code files, as they lie in the folder.

    Raises:
        ValueError: when model or processor is not a class of this package.
    """
    if not isinstance(model, HfDetrPreTrainedModel):
        raise ValueError(f"model: expected one of hf_detr, got {type(model).__module__}.{type(model).__name__}.")
    ours = (image_processing.HfDetrImageProcessor, image_processing.HfDetrImageProcessorPil)
    if processor is not None and not isinstance(processor, ours):
        raise ValueError(f"processor: expected a HfDetrImageProcessor, got {type(processor).__name__}.")
    folder = Path(folder)
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return add_code(folder)


def add_code(folder: Path) -> list[Path]:
    """Copy the code into a folder with a configuration, and an image processor perhaps, and name it there.

    Returns:
        The code files, as they lie in the folder.
    """
    copies = [Path(shutil.copy(file, folder)) for file in code_files()]
    # The entries that name the code are written last, so that a folder never promises code that is not there.
    _add(folder / CONFIG_NAME, auto_map=_MODEL_AUTO_MAP)
    if (folder / IMAGE_PROCESSOR_NAME).exists():
        _add(folder / IMAGE_PROCESSOR_NAME, auto_map=_PROCESSOR_AUTO_MAP)
    return copies


def code_files() -> list[Path]:
    """The files that models and image processors need, found as transformers finds them; no two have one name."""
    imported = {Path(found) for file in _ENTRY_FILES for found in get_relative_import_files(file)}
    return sorted(imported.union(_ENTRY_FILES))


def _add(file: Path, **fields: Any) -> None:
    """Add fields to a JSON file, which is replaced whole."""
    write_json(file, read_json(file) | fields, indent=2)  # as transformers writes it
