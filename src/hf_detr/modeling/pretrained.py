"""What all models share: loading, saving, initialisation."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, Self, overload, runtime_checkable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from .backbone import Backbone
from .configuration import HfDetrConfig
from .foreign import FOREIGN

logger = logging.get_logger(__name__)


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

        With another `id2label` than the checkpoint's, the installed package matches classes by name: each takes its
        row of the class heads along, new ones start new, and a line says which. Without names on either side
        (`num_labels` alone, or names such as "LABEL_0") nothing is moved. Another number of classes then needs
        `ignore_mismatched_sizes=True`.

        Args:
            pretrained_model_name_or_path: a local folder or a repository on the Hub.
            kwargs: as in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: when a foreign checkpoint has keys that are left over or missing, all of which are listed; or
                when `id2label` does not name the labels from 0 on.
        """
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
