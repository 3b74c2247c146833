"""What all models share: loading, saving, initialisation."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from .backbone import Backbone
from .configuration import HfDetrConfig

logger = logging.get_logger(__name__)


class HfDetrPreTrainedModel(PreTrainedModel):
    """What all models share: loading, saving, initialisation."""

    config: HfDetrConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("Backbone", "EncoderLayer", "DecoderLayer")

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
        elif hasattr(module, "initialise"):
            module.initialise()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Initialise a part that is not initialised yet.

        For code outside transformers the inherited method passes over modules without tensors of their own, and with
        them over `initialise`, as it cannot know that `_init_weights` leaves loaded tensors alone. Ours does.
        """
        super()._initialize_weights(module, False)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, **kwargs: Any
    ) -> None:
        """Checkpoint without re-entering autograd, which loses the gradients of what layers take in structures."""
        if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            logger.warning_once("use_reentrant=True is not supported; gradient checkpointing runs without it.")
            keywords = gradient_checkpointing_func.keywords | {"use_reentrant": False}
            gradient_checkpointing_func = partial(gradient_checkpointing_func.func, **keywords)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> "HfDetrPreTrainedModel":
        """Load a model of ours, or a repository of transformers' own DETR models, converted on the fly.

        Args:
            pretrained_model_name_or_path: a local folder or a repository on the Hub.
            kwargs: as in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: when a foreign checkpoint has keys that are left over or missing; all are listed.
        """
        try:  # a copy of this file that travels with its weights has no converters beside it
            from hf_detr.conversion import load_foreign
        except ImportError:
            load_foreign = None
        if load_foreign is not None and pretrained_model_name_or_path is not None:
            model = load_foreign(cls, pretrained_model_name_or_path, *args, **kwargs)
            if model is not None:
                return model
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        for module in model.modules():
            if isinstance(module, Backbone):
                module.freeze()  # loading replaces the parameters, and with them what is trained
        return loaded


def init_batch_norm(module: nn.Module) -> None:
    """Batch norm, frozen or not: identity."""
    init.zeros_(module.running_mean)
    init.ones_(module.running_var)
    if getattr(module, "num_batches_tracked", None) is not None:
        init.zeros_(module.num_batches_tracked)
    if module.weight is not None:
        init.ones_(module.weight)
        init.zeros_(module.bias)


def init_timm_module(module: nn.Module) -> None:
    """What a file lacks of timm's modules: tokens, tables and scales start small, fixed tables as computed."""
    for parameter in module.parameters(recurse=False):
        init.normal_(parameter, std=0.02)
    if hasattr(module, "init_non_persistent_buffers"):
        module.init_non_persistent_buffers()
