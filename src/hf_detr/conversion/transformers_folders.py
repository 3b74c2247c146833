"""Loads folders and Hub repositories that transformers' own DETR models have saved into our models.

The configuration is translated, every key of the weights is renamed or the conversion fails, and transformers loads
the result like a state dict of ours: saving the model writes our layout.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import meta_device_safe_creation_ops
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    find_adapter_config_file,
    is_peft_available,
)

from ..modeling.configuration import HfDetrConfig
from ..modeling.detection import HfDetrForObjectDetection
from ..modeling.pretrained import HfDetrPreTrainedModel
from .key_tables import ConversionError, convert_state_dict
from .published import read_checkpoint
from .transformers_configs import TRANSFORMERS_MODEL_TYPES, translate_config
from .transformers_keys import transformers_key_table

# Arguments of `from_pretrained` that say where files are found, and arguments that are not for the configuration.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
_LOADING_ARGUMENTS = ("attn_implementation", "dtype", "torch_dtype")


def load_foreign(
    model_class: type[HfDetrPreTrainedModel], name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
) -> Any | None:
    """Load a model of ours from a folder or repository of transformers' own DETR models.

    Args:
        model_class: `HfDetrForObjectDetection` or `HfDetrModel`.
        name_or_path: a folder or the name of a repository on the Hub.
        args, kwargs: the arguments of `PreTrainedModel.from_pretrained`.

    Returns:
        What `from_pretrained` returns, or None when the repository is not one of these, ours included.

    Raises:
        ConversionError: for a configuration that our models cannot express, or keys that are left over or missing.
        OSError: when the repository has no weights.
    """
    if "state_dict" in kwargs:
        return None
    hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
    written = _read_config(name_or_path, hub)
    if written and written.get("model_type") not in TRANSFORMERS_MODEL_TYPES:
        return None
    adapter = find_adapter_config_file(str(name_or_path), **hub) if is_peft_available() else None
    if written:
        loaded = _load_converted(model_class, name_or_path, written, hub, args, kwargs)
    elif adapter is not None:  # an adapter, whose base model is stored elsewhere
        base = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"]
        kwargs = {name: value for name, value in kwargs.items() if name not in ("revision", "subfolder")}
        loaded = load_foreign(model_class, base, *args, **kwargs)
    else:
        return None
    if adapter is not None and loaded is not None:
        _model_of(loaded).load_adapter(str(name_or_path), adapter_kwargs=hub)
    return loaded


def _read_config(name_or_path: str | os.PathLike, hub: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json`, empty where there is none; transformers will then report that."""
    try:
        return PreTrainedConfig.get_config_dict(name_or_path, **hub)[0]
    except OSError:
        return {}


def _model_of(loaded: Any) -> PreTrainedModel:
    """Return the model of what `from_pretrained` returned, alone or with its loading information."""
    return loaded[0] if isinstance(loaded, tuple) else loaded


def _load_converted(
    model_class: type[HfDetrPreTrainedModel],
    name_or_path: str | os.PathLike,
    written: dict[str, Any],
    hub: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    config, kwargs = _resolve_config(model_class, name_or_path, kwargs)
    form = {name: kwargs.pop(name, None) for name in ("use_safetensors", "variant")}
    state_dict = read_weights(name_or_path, hub, **form)
    saved_config = HfDetrConfig.from_dict(translate_config(written, {"auxiliary_loss": True}))
    weights = convert_folder(saved_config, state_dict)
    loaded = model_class.from_pretrained(None, *args, config=config, state_dict=weights, **kwargs)
    model = _model_of(loaded)
    model.name_or_path = model.config.name_or_path = str(name_or_path)
    return loaded


def _resolve_config(
    model_class: type[HfDetrPreTrainedModel], name_or_path: str | os.PathLike, kwargs: dict[str, Any]
) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Return the configuration with the arguments that belong to it, and the arguments that remain."""
    config = kwargs.pop("config", None)
    if isinstance(config, PreTrainedConfig):
        return config, {name: value for name, value in kwargs.items() if name not in _HUB_ARGUMENTS}
    loading = {name: kwargs.pop(name) for name in _LOADING_ARGUMENTS if name in kwargs}
    source = name_or_path if config is None else config
    config, unused = model_class.config_class.from_pretrained(source, return_unused_kwargs=True, **kwargs)
    return config, unused | loading


def convert_folder(config: HfDetrConfig, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a folder under the names of `HfDetrForObjectDetection`.

    Args:
        config: the folder's own configuration, translated.
        state_dict: the tensors that were saved.

    Raises:
        ConversionError: listing every key that is left over or missing, or naming a backbone that transformers builds
            differently.
    """
    with torch.device("meta"), meta_device_safe_creation_ops():
        model = HfDetrForObjectDetection(config)
    _check_batch_norms(model.model.backbone.body, config)
    return convert_state_dict(_repeat_shared_heads(state_dict, config), transformers_key_table(config), model)


def _check_batch_norms(body: nn.Module, config: HfDetrConfig) -> None:
    """Refuse batch norms with another eps than 1e-5 or an activation, which transformers leaves out."""
    for name, module in body.named_modules():
        if isinstance(module, FrozenBatchNormAct2d) or (hasattr(module, "running_var") and module.eps != 1e-5):
            raise ConversionError(
                f"backbone='{config.backbone}': transformers computes its batch norm {name} without the activation or "
                "the eps that timm gives it; such weights cannot be converted."
            )


def _repeat_shared_heads(state_dict: dict[str, Tensor], config: HfDetrConfig) -> dict[str, Tensor]:
    """Repeat the class head for each layer: transformers saves a shared head once, ours has one a layer."""
    class_heads = {key for key in state_dict if key.startswith("class_embed.")}
    if config.box_refinement != "per_layer" or class_heads != {"class_embed.0.weight", "class_embed.0.bias"}:
        return state_dict
    return state_dict | {
        key.replace(".0.", f".{layer}."): state_dict[key].clone()
        for key in class_heads
        for layer in range(1, config.decoder_layers)
    }


def read_weights(
    name_or_path: str | os.PathLike,
    hub: dict[str, Any],
    use_safetensors: bool | None = None,
    variant: str | None = None,
) -> dict[str, Tensor]:
    """Return all tensors of a folder or repository, from safetensors or from a pickle that is never executed.

    Args:
        name_or_path: a folder or the name of a repository on the Hub.
        hub: arguments of `from_pretrained` that say where files are found, `revision` for example.
        use_safetensors: read safetensors only (True) or pickles only (False).
        variant: read `model.<variant>.safetensors` and the like.

    Raises:
        OSError: when no such file exists, or a shard is missing.
    """
    names = [] if use_safetensors is False else [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]
    names += [] if use_safetensors else [WEIGHTS_NAME, WEIGHTS_INDEX_NAME]
    if variant is not None:
        names = [f"{stem}.{variant}.{extension}" for stem, extension in (name.rsplit(".", 1) for name in names)]
    for name in names:
        found = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub)
        if found is None:
            continue
        if not found.endswith(".json"):
            return read_checkpoint(found)
        shards = sorted(set(json.loads(Path(found).read_text(encoding="utf-8"))["weight_map"].values()))
        files = [_shard(name_or_path, shard, hub) for shard in shards]
        return {key: tensor for file in files for key, tensor in read_checkpoint(file).items()}
    raise OSError(f"{name_or_path} has none of the weight files {', '.join(names)}.")


def _shard(name_or_path: str | os.PathLike, name: str, hub: dict[str, Any]) -> str:
    found = cached_file(name_or_path, name, **hub)
    if found is None:
        raise OSError(f"{name_or_path} lacks the shard {name}, which its index names.")
    return found
