"""What all models share: loading, saving, initialisation."""

import os
from collections.abc import Callable, Collection
from copy import deepcopy
from functools import partial
from typing import Any, Literal, Protocol, Self, overload, runtime_checkable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from .backbone import Backbone
from .class_rows import HasClassRows, class_names, describe, rows_by_name
from .configuration import HfDetrConfig
from .foreign import FOREIGN

logger = logging.get_logger(__name__)

# Arguments of `from_pretrained` that say where files are found.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


_BATCH_NORM_STARTS = {
    init.zeros_: ("running_mean", "num_batches_tracked", "bias"),
    init.ones_: ("running_var", "weight"),
}


@runtime_checkable
class Initialising(Protocol):
    """A part of a model that has first values of its own."""

    def initialise(self) -> None:
        """Write them."""


@runtime_checkable
class ComputesBuffers(Protocol):
    """A module of timm with tables that are not saved."""

    def init_non_persistent_buffers(self) -> None:
        """Compute them."""


class HfDetrPreTrainedModel(PreTrainedModel):
    """What all models share: loading, saving, initialisation."""

    config: HfDetrConfig
    config_class: type[HfDetrConfig]
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["Backbone", "EncoderLayer", "DecoderLayer"]  # noqa: RUF012 - as transformers declares it

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Published initialisation; parts with values of their own have a method `initialise`.

        What timm has initialised or loaded is marked and left alone by the functions used here.
        """
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif hasattr(module, "running_var"):
            init_batch_norm(module)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            if module.weight is not None:
                init.ones_(module.weight)
                init.zeros_(module.bias)
        elif type(module).__module__.startswith("timm."):
            init_timm_module(module)
        elif isinstance(module, Initialising):
            module.initialise()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Initialise a part that is not initialised yet.

        For code outside transformers the inherited method passes over modules without tensors of their own, and with
        them over `initialise`, as it cannot know that `_init_weights` leaves loaded tensors alone. Ours does.
        """
        super()._initialize_weights(module, False)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, *args: Any, **kwargs: Any
    ) -> None:
        """Checkpoint without re-entering autograd, which loses the gradients of what layers take in structures."""
        given = gradient_checkpointing_func
        if isinstance(given, partial) and given.keywords.get("use_reentrant"):
            logger.warning_once("use_reentrant=True is not supported; gradient checkpointing runs without it.")
            gradient_checkpointing_func = partial(given.func, **(given.keywords | {"use_reentrant": False}))
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, *args, **kwargs)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[False] = ...,
        **kwargs: Any,
    ) -> Self: ...
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a model of ours, or a repository of transformers' own DETR models, converted on the fly.

        With another `id2label` than the checkpoint's, classes are matched by name: each takes its row of the class
        heads along, new ones start new, and a line says which. Without names on either side (`num_labels` alone, or
        names such as "LABEL_0") nothing is moved; another number of classes then needs `ignore_mismatched_sizes=True`.

        Args:
            pretrained_model_name_or_path: a local folder or a repository on the Hub.
            kwargs: as in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: when a foreign checkpoint has keys that are left over or missing; all are listed.
        """
        saved, wanted, kwargs = _class_change(pretrained_model_name_or_path, kwargs)
        if saved is not None and wanted is not None:
            with_info = kwargs.pop("output_loading_info", False)
            model, info = cls.from_pretrained(pretrained_model_name_or_path, *args, **kwargs, output_loading_info=True)
            model.adapt_classes(saved, wanted, info["mismatched_keys"])
            return (model, info) if with_info else model
        if FOREIGN.load is not None and pretrained_model_name_or_path is not None:
            converted = FOREIGN.load(cls, pretrained_model_name_or_path, *args, **kwargs)
            if converted is not None:
                return converted
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        for module in model.modules():
            if isinstance(module, Backbone):
                module.freeze()  # loading replaces the parameters, and with them what is trained
        return loaded

    def adapt_classes(self, saved: list[str], wanted: list[str], mismatched: Collection = ()) -> None:
        """Move the rows of the class heads from the saved classes to the wanted ones, by name, and say so in a line.

        `mismatched` are the weights that the checkpoint has in another size: where a class head is one of them, it was
        not loaded, and no class is kept.
        """
        is_lost = any("class_head" in str(key) for key in mismatched)
        rows = [None] * len(wanted) if is_lost else rows_by_name(saved, wanted)
        for module in list(self.modules()):
            if isinstance(module, HasClassRows):
                module.move_classes(rows)
        self.config.id2label = dict(enumerate(wanted))
        self.config.label2id = {name: label for label, name in enumerate(wanted)}
        logger.warning(describe(saved, wanted, rows))


def _class_change(
    name_or_path: str | os.PathLike | None, kwargs: dict[str, Any]
) -> tuple[list[str] | None, list[str] | None, dict[str, Any]]:
    """The class names of a checkpoint, those that are wanted instead, and arguments that load it with its own.

    The wanted names are None, and the arguments as given, where no names are to be matched.
    """
    unchanged = None, None, kwargs
    config, id2label = kwargs.get("config"), kwargs.get("id2label")
    if isinstance(config, str | os.PathLike):
        config = HfDetrConfig.from_pretrained(config)
    if config is not None:
        id2label = config.id2label
    wanted = class_names(id2label)
    if name_or_path is None or id2label is None or wanted is None or "state_dict" in kwargs:
        return unchanged
    HfDetrConfig(id2label=dict(id2label))  # refuses keys that are no labels
    try:
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        saved = class_names(PreTrainedConfig.get_config_dict(name_or_path, **hub)[0].get("id2label"))
    except OSError:  # a folder with an adapter only, or none: loading says what is wrong
        return unchanged
    if saved is None or saved == wanted:
        return unchanged
    kwargs = {name: value for name, value in kwargs.items() if name != "num_labels"}
    classes = {"id2label": dict(enumerate(saved)), "label2id": {name: label for label, name in enumerate(saved)}}
    if config is None:
        return saved, wanted, kwargs | classes
    config = deepcopy(config)
    config.id2label, config.label2id = classes["id2label"], classes["label2id"]
    return saved, wanted, kwargs | {"config": config}


def init_batch_norm(module: nn.Module) -> None:
    """Batch norm, frozen or not: identity."""
    for start, names in _BATCH_NORM_STARTS.items():
        for name in names:
            tensor = getattr(module, name, None)
            if tensor is not None:
                start(tensor)


def init_timm_module(module: nn.Module) -> None:
    """What a file lacks of timm's modules: tokens, tables and scales start small, fixed tables as computed."""
    for parameter in module.parameters(recurse=False):
        init.normal_(parameter, std=0.02)
    if isinstance(module, ComputesBuffers):
        module.init_non_persistent_buffers()
