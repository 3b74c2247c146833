"""Translates configurations of transformers' own DETR models into fields of `HfDetrConfig`.

The tables below say what becomes of a field: it keeps its name, gets another name, picks a row of our presets, or must
have the one value with which our models compute. Fields in none of the tables do not touch the computation.
"""

import math
from typing import Any

from transformers import CONFIG_MAPPING

from ..modeling.presets import get_preset
from .key_tables import ConversionError

# The preset of our model with the same structure, by the model type of transformers.
_PRESETS = {
    "detr": "detr-resnet-50",
    "conditional_detr": "conditional-detr-resnet-50",
    "dab-detr": "dab-detr-resnet-50",
    "deformable_detr": "deformable-detr-resnet-50",
}
TRANSFORMERS_MODEL_TYPES = tuple(_PRESETS)

_SAME_NAME = (
    "activation_dropout",
    "activation_function",
    "attention_dropout",
    "auxiliary_loss",
    "bbox_cost",
    "bbox_loss_coefficient",
    "class_cost",
    "d_model",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "decoder_layers",
    "decoder_n_points",
    "dropout",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "encoder_layers",
    "encoder_n_points",
    "eos_coefficient",
    "focal_alpha",
    "giou_cost",
    "giou_loss_coefficient",
    "num_feature_levels",
    "num_queries",
)
_RENAMED = {
    "cls_loss_coefficient": "class_loss_coefficient",
    "hidden_size": "d_model",
    "position_embedding_type": "position_embedding",
    "temperature_height": "position_temperature",
}
# Fields of every configuration of transformers, taken where they are written.
_GENERAL = ("dtype", "id2label", "label2id", "num_labels", "output_attentions", "output_hidden_states", "return_dict")
# With another value of these fields the computation would be another one; the two layer drops change it in training.
_ONLY_VALUE = {
    "decoder_layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "keep_query_pos": False,
    "normalize_before": False,
    "num_patterns": 0,
    "query_dim": 4,
}
# The ResNets of transformers that timm has under a name: (kind of block, blocks per stage).
_RESNETS = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
_RESNET_MAPS = ("stem", "stage1", "stage2", "stage3", "stage4")
_RESNET_WIDTHS = {"basic": [64, 128, 256, 512], "bottleneck": [256, 512, 1024, 2048]}
_RESNET_ONLY_VALUE = {
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
}
_TIMM_ARGUMENTS = {"features_only", "in_chans", "num_channels", "out_indices", "output_stride"}


class _Settings:
    """A configuration file of transformers, with the defaults of its class for what it leaves out."""

    def __init__(self, written: dict[str, Any], model_type: str):
        self.defaults = CONFIG_MAPPING[model_type]
        aliases = self.defaults.attribute_map
        self.written = {aliases[name]: value for name, value in written.items() if name in aliases} | written

    def __contains__(self, name: str) -> bool:
        return name in self.written or name in self.defaults.__dataclass_fields__

    def __getitem__(self, name: str) -> Any:
        """The value of a field, None when the model has no such field."""
        return self.written.get(name, getattr(self.defaults, name, None))

    def require(self, expected: dict[str, Any], where: str) -> None:
        """Raise ConversionError when a field that the model has is not as expected."""
        for name, value in expected.items():
            if name in self and self[name] != value:
                raise ConversionError(
                    f"{where}: {name}={self[name]!r} cannot be converted, only {name}={value!r} is known."
                )


def translate_config(written: dict[str, Any], overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of `HfDetrConfig` for the same computation.

    Args:
        written: the content of a `config.json`. The content of any other model type, ours included, is returned as it
            is.
        overrides: the fields that the caller sets. Only `auxiliary_loss` matters here, see below.

    Returns:
        Keyword arguments of `HfDetrConfig`, and its `model_type`.

    Raises:
        ConversionError: our models cannot express a field; the message names it. `auxiliary_loss=True` is such a field
            in DETR and Conditional DETR, because transformers then normalises the decoder states between the layers.
            The caller may override it for weights that were not trained that way.
    """
    model_type = written.get("model_type")
    if model_type not in _PRESETS:
        return written
    settings = _Settings(written, model_type)
    _refuse(settings, model_type, overrides or {})
    fields = get_preset(_preset_name(settings, model_type))
    fields.pop("id2label", None)
    fields |= {name: settings[name] for name in _SAME_NAME if name in settings}
    fields |= {ours: settings[name] for name, ours in _RENAMED.items() if name in settings}
    fields |= {name: written[name] for name in _GENERAL if name in written}
    if "dtype" not in fields and "torch_dtype" in written:
        fields["dtype"] = written["torch_dtype"]
    if settings["two_stage"]:
        fields["num_queries"] = settings["two_stage_num_proposals"]
    if model_type == "dab-detr":
        fields["inverse_sigmoid_eps"] = 1e-5  # transformers clamps here; the authors' code clamps at 1e-3
    fields |= _backbone_fields(settings, model_type)
    return fields | {"model_type": "hf_detr"}


def _preset_name(settings: _Settings, model_type: str) -> str:
    name = _PRESETS[model_type]
    if model_type != "deformable_detr":
        return name
    if settings["two_stage"]:
        settings.require({"with_box_refine": True}, "deformable_detr with two_stage")
        return f"{name}-two-stage"
    return f"{name}-refine" if settings["with_box_refine"] else name


def _refuse(settings: _Settings, model_type: str, overrides: dict[str, Any]) -> None:
    settings.require(_ONLY_VALUE, model_type)
    if "temperature_width" in settings:
        settings.require({"temperature_width": settings["temperature_height"]}, model_type)
        if settings["sine_position_embedding_scale"] not in (None, 2 * math.pi):
            settings.require({"sine_position_embedding_scale": None}, model_type)
    if model_type in ("detr", "conditional_detr") and settings["auxiliary_loss"] and "auxiliary_loss" not in overrides:
        raise ConversionError(
            f"{model_type}: with auxiliary_loss=True transformers normalises the decoder states between the layers, "
            "which the published models do not and ours cannot. Pass auxiliary_loss=True (or False) to load weights "
            "that were not trained that way."
        )


def _backbone_fields(settings: _Settings, model_type: str) -> dict[str, Any]:
    """Return our fields for the backbone, from its own configuration or from the fields that older versions wrote."""
    config = settings["backbone_config"]
    if config is None:
        config = _older_backbone_config(settings, model_type)
    kind = config.get("model_type", "resnet")
    if kind == "timm_backbone":
        fields, indices = _timm_fields(config, model_type), config.get("out_indices")
    elif kind == "resnet":
        fields, indices = _resnet_fields(config), _resnet_indices(config)
    else:
        raise ConversionError(f"{model_type}: a backbone_config of model_type={kind!r} cannot be converted.")
    _check_indices(indices, settings, model_type)
    return fields


def _older_backbone_config(settings: _Settings, model_type: str) -> dict[str, Any]:
    name, written = settings.written.get("backbone"), settings.written
    if written.get("use_timm_backbone", True):
        arguments = dict(written.get("backbone_kwargs") or {})
        unknown = set(arguments) - _TIMM_ARGUMENTS
        if unknown:
            raise ConversionError(f"{model_type}: backbone_kwargs {sorted(unknown)} cannot be converted.")
        if settings["dilation"]:
            arguments.setdefault("output_stride", 16)
        return {"model_type": "timm_backbone", "backbone": name or "resnet50", **arguments}
    if name:
        raise ConversionError(
            f"{model_type}: backbone={name!r} is another repository; only a backbone_config or a timm backbone can be "
            "converted."
        )
    return {"model_type": "resnet"}


def _timm_fields(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    name, stride = config["backbone"], config.get("output_stride")
    if config.get("features_only") is False:
        raise ConversionError(f"{model_type}: a backbone with features_only=False cannot be converted.")
    fields = {
        "backbone": name,
        "dilation": stride == 16,
        "num_channels": config.get("in_chans", config.get("num_channels", 3)),
        "frozen_stages": 1 if "resnet" in name else -1,
    }
    if stride not in (None, 16, 32):
        fields["backbone_kwargs"] = {"output_stride": stride}
    return fields


def _resnet_fields(config: dict[str, Any]) -> dict[str, Any]:
    settings = _Settings(config, "resnet")
    kind, depths = settings["layer_type"], tuple(settings["depths"] or (3, 4, 6, 3))
    if (kind, depths) not in _RESNETS:
        raise ConversionError(f"backbone_config: a ResNet with layer_type={kind!r} and depths={depths} has no name.")
    settings.require(_RESNET_ONLY_VALUE, "backbone_config")
    if list(settings["hidden_sizes"] or _RESNET_WIDTHS["bottleneck"]) != _RESNET_WIDTHS[kind]:
        settings.require({"hidden_sizes": _RESNET_WIDTHS[kind]}, "backbone_config")
    return {
        "backbone": _RESNETS[kind, depths],
        "num_channels": settings["num_channels"],
        "frozen_stages": 1,
    }


def _resnet_indices(config: dict[str, Any]) -> list[int]:
    """Return which of (stem, stage 1 … stage 4) the model reads; the last stage when nothing is written."""
    names = config.get("out_features") or _RESNET_MAPS[-1:]
    return config.get("out_indices") or [_RESNET_MAPS.index(name) for name in names]


def _check_indices(indices: list[int] | None, settings: _Settings, model_type: str) -> None:
    """Check that the last maps of a backbone are read: one less than there are levels, but at least one."""
    if model_type != "deformable_detr" or indices is None:
        return
    wanted = max(1, settings["num_feature_levels"] - 1)
    if len(indices) != wanted or list(indices) != list(range(indices[0], indices[0] + wanted)):
        raise ConversionError(
            f"deformable_detr: out_indices={list(indices)} with num_feature_levels={settings['num_feature_levels']} "
            f"cannot be converted, only the last {wanted} map(s) of the backbone."
        )
