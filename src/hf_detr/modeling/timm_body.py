"""The timm model inside of the backbone: built by its name, its batch norms frozen, its own initialisation kept."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.utils import is_timm_available, requires_backends

from .configuration import HfDetrConfig

if TYPE_CHECKING:
    from timm.models import FeatureInfo

# Set on patch embeddings, so that they take sides that are no multiple of the patch.
_PADS_PATCHES = "dynamic_img_pad"
# Set on tensors, so that transformers does not initialise them.
_INITIALISED = "_is_hf_initialized"

# Transformers of fixed input size need to be told that ours varies.
_VARIABLE_SIZE_ARGUMENTS = {
    # windows of the published size that shift in every other block, as the detection models on Swin have them
    "swin": {"strict_img_size": False, "always_partition": True},
    "vit": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "beit": {"dynamic_img_size": True},
}


def create_body(config: HfDetrConfig, num_maps: int) -> nn.Module:
    """The timm model, frozen as the config says.

    Raises:
        ImportError: when timm is not installed.
        OSError: when pretrained weights are wanted and cannot be fetched.
        ValueError: when timm has no such model, or it gives no feature maps or fewer than `num_maps`.
    """
    if not is_timm_available():
        requires_backends(create_body, ["timm"])
    import timm
    from timm.layers import freeze_batch_norm_2d

    arguments: dict[str, Any] = {}
    for family, family_arguments in _VARIABLE_SIZE_ARGUMENTS.items():
        if config.backbone.startswith(family):
            arguments.update(family_arguments)
    if config.dilation:
        arguments["output_stride"] = 16
    if config.num_channels != 3:
        arguments["in_chans"] = config.num_channels
    arguments.update(config.backbone_kwargs or {})
    if not timm.is_model(config.backbone):
        nearest = timm.list_models(f"*{config.backbone.split('.')[0][:6]}*")[:5]
        raise ValueError(f"backbone='{config.backbone}' is not a timm model. Similar names: {', '.join(nearest)}.")
    try:
        body = timm.create_model(
            config.backbone,
            # `from_pretrained` builds on the meta device; the weights it loads are of the whole model
            pretrained=config.use_pretrained_backbone and not torch.empty(0).is_meta,
            features_only=True,
            out_indices=tuple(range(-num_maps, 0)),
            **arguments,
        )
    except OSError as error:
        raise OSError(
            f"The pretrained weights of backbone='{config.backbone}' cannot be fetched. Check the connection or start "
            "from random weights: use_pretrained_backbone=False, on the command line --no-pretrained-backbone."
        ) from error
    except IndexError as error:
        with torch.device("meta"):
            smallest = timm.create_model(config.backbone, features_only=True, out_indices=(-1,), **arguments)
        levels, most = f"num_feature_levels={config.num_feature_levels}", len(feature_info(smallest).info) + 1
        raise ValueError(f"{levels}: backbone='{config.backbone}' allows at most {most}.") from error
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise ValueError(f"backbone='{config.backbone}' gives no feature maps through timm: {error}") from error
    for module in body.modules():
        if hasattr(module, _PADS_PATCHES):
            setattr(module, _PADS_PATCHES, True)
    if config.freeze_batch_norm:
        body = freeze_batch_norm_2d(body)
        open_residual_branches(body)
    mark_initialised(body)
    return body


def open_residual_branches(body: nn.Module) -> None:
    """Give frozen norms of scale zero a small one.

    timm starts the last norm of a residual block at zero, to be learned; frozen, it would switch the block off for
    good in a model that loads no weights. At 0.2 the untrained maps of 152 layers are as large as the maps of 50.
    """
    for module in body.modules():
        scale = module.weight if hasattr(module, "running_var") else None
        if isinstance(scale, Tensor) and not scale.is_meta and not scale.any():
            nn.init.constant_(scale, 0.2)


def mark_initialised(body: nn.Module) -> None:
    """Keep timm's own initialisation: transformers initialises only what is not marked.

    On the meta device nothing is initialised yet, and what a checkpoint lacks is left to `_init_weights`.
    """
    for tensor in [*body.parameters(), *body.buffers()]:
        if tensor.device != torch.device("meta"):
            setattr(tensor, _INITIALISED, True)


def freeze_stages(body: nn.Module, frozen_stages: int) -> None:
    """Stop training the stem and the first `frozen_stages` stages; -1 trains everything.

    timm registers parameters in the order of the computation, so all before the first trained stage are frozen.

    Raises:
        ValueError: when the backbone has fewer stages.
    """
    if frozen_stages < 0:
        return
    stages = [info["module"] for info in feature_info(body).info if info["reduction"] > 2]
    if frozen_stages > len(stages):
        raise ValueError(f"frozen_stages={frozen_stages}: this backbone has {len(stages)} stages.")
    # timm joins the names of nested modules by "." or "_", depending on how it cuts the model
    trained = [f"{name}." for stage in stages[frozen_stages:] for name in (stage, stage.replace(".", "_"))]
    for name, parameter in body.named_parameters():
        if any(stage in name for stage in trained):
            return
        parameter.requires_grad_(False)


def feature_info(body: nn.Module) -> "FeatureInfo":
    """Return what timm tells about the maps of a feature extractor.

    Raises:
        ValueError: the module is no feature extractor of timm.
    """
    from timm.models import FeatureInfo

    info = body.feature_info
    if not isinstance(info, FeatureInfo):
        raise ValueError(f"{type(body).__name__} does not say which maps it gives.")
    return info


def is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters of its own and none of them is trained."""
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
