"""Turns everything that can go wrong while a model is loaded from files into one clear line."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, logging
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from .conversion.transformers_configs import TRANSFORMERS_MODEL_TYPES
from .files import read_json

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""A repository on the Hub, as "owner/name"."""
LOADED_TYPES = ("hf_detr", *TRANSFORMERS_MODEL_TYPES)
"""The values of `model_type` in configurations that can be loaded: ours, and the types that are converted."""
_CLASS_ROWS = ("class_head", "label_embedding")
"""Parts of the names of weights that have a row for each class."""
MOST_SAID = 300
"""The most characters of the reason that an error repeats. Some libraries explain over many lines."""


@contextmanager
def clear_loading_errors(model: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while a model is loaded into one line that names the model, and silence other output.

    Args:
        model: the model folder, or the repository on the Hub.

    Raises:
        ValueError: there is no such folder, or the block raised an exception. A package that is not installed is still
            a `ModuleNotFoundError`.
    """
    check_model_files(model)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(one_line(error, str(model))) from error
    finally:
        logging.set_verbosity(verbosity)


def check_model_files(model: str | Path) -> None:
    """Check that the configurations in a model folder can be read; a repository on the Hub is left to transformers.

    Raises:
        ValueError: neither a folder nor a name of a repository is given; or a file is missing, holds no JSON object,
            or names another type of model; the message names it.
    """
    folder = Path(model)
    if not folder.is_dir():
        if folder.is_file():
            raise ValueError(f"{model} is a file; expected the folder of a model")
        if not HUB_NAME.fullmatch(str(model)):
            raise ValueError(f"{model}: no such folder")
        return
    if not any((folder / name).is_file() for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME)):
        raise ValueError(f"{folder} holds no model: {CONFIG_NAME} is missing")
    for name in (CONFIG_NAME, IMAGE_PROCESSOR_NAME):
        content = read_json(folder / name) if (folder / name).is_file() else None
        if name == CONFIG_NAME and content is not None and content.get("model_type") not in LOADED_TYPES:
            raise ValueError(
                f"{folder / name}: expected a model_type among {', '.join(LOADED_TYPES)}, found "
                f"{content.get('model_type')!r}"
            )


def one_line(error: Exception, model: str) -> str:
    """Return the message of an error about a model, in one line."""
    said = " ".join(str(error).split()) or "no reason is given"
    if isinstance(error, SafetensorError):
        return f"{model}: its weights are no safetensors file, or not all of one: {said}"
    if "ignore_mismatched_sizes" in said:
        return f"{model}: its weights have other shapes than its configuration asks for"
    said = said if len(said) <= MOST_SAID else said[:MOST_SAID].rsplit(" ", 1)[0] + " ..."
    if isinstance(error, (ValueError, OSError)) and model in said:
        return said
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    return f"{model} cannot be loaded as a model: {kind}{said}"


def check_shapes(model: str | Path, found: dict[str, Any]) -> None:
    """Check that weights were passed over for their shape only where it depends on the number of classes.

    Args:
        model: the model folder, or the repository on the Hub.
        found: what `from_pretrained(..., output_loading_info=True)` says of the weights.

    Raises:
        ValueError: other weights have another shape than the configuration asks for; they are named.
    """
    wrong = sorted(entry for entry in found["mismatched_keys"] if not any(part in entry[0] for part in _CLASS_ROWS))
    if wrong:
        named = ", ".join(f"{key} {tuple(saved)} in place of {tuple(wanted)}" for key, saved, wanted in wrong[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{model}: weights have other shapes than the configuration asks for: {named}{more}")


def check_complete(model: str | Path, found: dict[str, Any]) -> None:
    """Check that the files of a model held all of its weights.

    Args:
        model: the model folder, or the repository on the Hub.
        found: the loading information that `from_pretrained(..., output_loading_info=True)` returns.

    Raises:
        ValueError: weights are missing. A model would have random numbers in their place.
    """
    missing = sorted(set(found["missing_keys"]) - {key for key, *_ in found["mismatched_keys"]})
    if missing:
        raise ValueError(f"{model}: {len(missing)} of the weights are missing in its files, the first is {missing[0]}")
