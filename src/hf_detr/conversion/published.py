"""Converts checkpoints that the papers' authors published: facebookresearch/detr and the repositories built on it."""

import argparse
import os
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..modeling.configuration import HfDetrConfig
from ..modeling.detection import HfDetrForObjectDetection
from .key_tables import ConversionError, Rule, convert_state_dict, rule

_LAYER = r"transformer\.(encoder|decoder)\.layers\.(\d+)\."
_TO = r"model.\1.layers.\2."

_COMMON = [
    rule(r"backbone\.0\.body\.(.+)", r"model.backbone.body.\1"),
    rule(
        _LAYER + r"self_attn\.in_proj_(weight|bias)",
        *(_TO + rf"self_attn.{name}_proj.\3" for name in "qkv"),
    ),
    rule(
        _LAYER
        + r"(self_attn|cross_attn)\.(out_proj|output_proj|value_proj|sampling_offsets|attention_weights)\.(\w+)",
        _TO + r"\3.\4.\5",
    ),
    rule(_LAYER + r"linear([12])\.(\w+)", _TO + r"ffn.fc\3.\4"),
    rule(_LAYER + r"activation\.weight", _TO + r"ffn.activation.weight"),
    rule(r"transformer\.encoder\.layers\.(\d+)\.norm1\.(\w+)", r"model.encoder.layers.\1.self_attn_norm.\2"),
    rule(r"transformer\.encoder\.layers\.(\d+)\.norm2\.(\w+)", r"model.encoder.layers.\1.ffn_norm.\2"),
    rule(r"transformer\.decoder\.layers\.(\d+)\.norm3\.(\w+)", r"model.decoder.layers.\1.ffn_norm.\2"),
    rule(r"transformer\.decoder\.norm\.(\w+)", r"model.decoder.norm.\1"),
    rule(r"transformer\.encoder\.query_scale\.(.+)", r"model.encoder.position_scale.\1"),
    rule(r"refpoint_embed\.weight", "model.queries.reference_box.weight"),
    rule(r"(transformer\.)?tgt_embed\.weight", "model.queries.content.weight"),
    rule(r"label_enc\.weight", "model.denoising.label_embedding.weight"),
    # Decoders that refine boxes hold the heads a second time.
    rule(r"transformer\.decoder\.(bbox_embed|class_embed)\..+"),
]

_DENSE = [
    rule(_LAYER + r"multihead_attn\.in_proj_(weight|bias)", *(_TO + rf"cross_attn.{name}_proj.\3" for name in "qkv")),
    rule(_LAYER + r"multihead_attn\.out_proj\.(\w+)", _TO + r"cross_attn.out_proj.\3"),
    rule(r"transformer\.decoder\.layers\.(\d+)\.norm1\.(\w+)", r"model.decoder.layers.\1.self_attn_norm.\2"),
    rule(r"transformer\.decoder\.layers\.(\d+)\.norm2\.(\w+)", r"model.decoder.layers.\1.cross_attn_norm.\2"),
    rule(r"query_embed\.weight", "model.queries.position.weight"),
    rule(r"input_proj\.(\w+)", r"model.backbone.projections.0.\1"),
]

_CONDITIONAL = [
    rule(_LAYER + r"sa_([qk])content_proj\.(\w+)", _TO + r"self_attn.\3_content_proj.\4"),
    rule(_LAYER + r"sa_([qk])pos_proj\.(\w+)", _TO + r"self_attn.\3_position_proj.\4"),
    rule(_LAYER + r"sa_v_proj\.(\w+)", _TO + r"self_attn.v_proj.\3"),
    rule(_LAYER + r"ca_([qk])content_proj\.(\w+)", _TO + r"cross_attn.\3_content_proj.\4"),
    rule(_LAYER + r"ca_([qk])pos_proj\.(\w+)", _TO + r"cross_attn.\3_position_proj.\4"),
    rule(_LAYER + r"ca_qpos_sine_proj\.(\w+)", _TO + r"cross_attn.q_spatial_proj.\3"),
    rule(_LAYER + r"ca_v_proj\.(\w+)", _TO + r"cross_attn.v_proj.\3"),
    rule(r"transformer\.decoder\.query_scale\.(.+)", r"model.decoder.spatial.scale.\1"),
    rule(r"transformer\.decoder\.ref_anchor_head\.(.+)", r"model.decoder.spatial.size.\1"),
    *_DENSE[2:],
]

_DEFORMABLE = [
    # The original numbers its norms in another order than it uses them.
    rule(r"transformer\.decoder\.layers\.(\d+)\.norm1\.(\w+)", r"model.decoder.layers.\1.cross_attn_norm.\2"),
    rule(r"transformer\.decoder\.layers\.(\d+)\.norm2\.(\w+)", r"model.decoder.layers.\1.self_attn_norm.\2"),
    rule(r"transformer\.level_embed", "model.encoder.level_embedding"),
    rule(r"transformer\.reference_points\.(\w+)", r"model.queries.reference_point.layers.0.\1"),
    rule(r"query_embed\.weight", "model.queries.position.weight", "model.queries.content.weight", dim=1),
    rule(r"input_proj\.(\d+)\.([01])\.(\w+)", r"model.backbone.projections.\1.\2.\3"),
    rule(r"transformer\.decoder\.query_scale\.(.+)", r"model.decoder.position.scale.\1"),
    rule(r"transformer\.decoder\.ref_point_head\.(.+)", r"model.decoder.position.head.\1"),
    rule(r"transformer\.enc_output\.(\w+)", r"model.queries.projection.\1"),
    rule(r"transformer\.enc_output_norm\.(\w+)", r"model.queries.projection_norm.\1"),
    rule(r"transformer\.pos_trans\.(\w+)", r"model.queries.reference_projection.\1"),
    rule(r"transformer\.pos_trans_norm\.(\w+)", r"model.queries.reference_norm.\1"),
    rule(r"transformer\.enc_out_class_embed\.(\w+)", r"model.queries.heads.class_head.0.\1"),
    rule(r"transformer\.enc_out_bbox_embed\.(.+)", r"model.queries.heads.box_head.0.\1"),
]


_SWIN_BLOCK = r"backbone\.0\.layers\.(\d+)\.blocks\.(\d+)\."


def _swin_rules(config: HfDetrConfig) -> list[Rule]:
    """The Swin of IDEA-Research/DINO. timm puts the downsampling at the start of a stage, the original at the end of
    the stage before; output norms are numbered by stage there, by map here."""
    if not config.backbone.startswith("swin_"):
        return []
    num_maps = max(1, config.num_feature_levels - 1)
    return [
        rule(r"backbone\.0\.patch_embed\.(.+)", r"model.backbone.body.patch_embed.\1"),
        rule(_SWIN_BLOCK + r"attn\.relative_position_index"),
        rule(_SWIN_BLOCK + r"(.+)", r"model.backbone.body.layers_\1.blocks.\2.\3"),
        *(
            rule(
                rf"backbone\.0\.layers\.{stage}\.downsample\.(.+)",
                rf"model.backbone.body.layers_{stage + 1}.downsample.\1",
            )
            for stage in range(3)
        ),
        *(
            rule(rf"backbone\.0\.norm{4 - num_maps + level}\.(\w+)", rf"model.backbone.norms.{level}.\1")
            for level in range(num_maps)
        ),
    ]


def published_key_table(config: HfDetrConfig) -> list[Rule]:
    """Return the key table of the repository that published models of this kind."""
    by_attention = {"dense": _DENSE, "conditional": _CONDITIONAL, "deformable": _DEFORMABLE}
    return [
        *_swin_rules(config),
        *_position_rules(config),
        *_COMMON,
        *by_attention[config.cross_attention],
        *_head_rules(config),
    ]


def _position_rules(config: HfDetrConfig) -> list[Rule]:
    if config.cross_attention != "conditional":
        return []
    target = "model.queries.reference_point" if config.query_reference == "point" else "model.decoder.position.head"
    return [rule(r"transformer\.decoder\.ref_point_head\.(.+)", rf"{target}.\1")]


def _head_rules(config: HfDetrConfig) -> list[Rule]:
    """Return the rules of the heads: one, or one for each layer, and perhaps a last one for two-stage proposals."""
    if config.cross_attention != "deformable":
        return [
            rule(r"class_embed\.(\w+)", r"model.heads.class_head.0.\1"),
            rule(r"bbox_embed\.layers\.(.+)", r"model.heads.box_head.0.layers.\1"),
        ]
    proposals = rf"{config.decoder_layers}"
    rules = [
        rule(rf"class_embed\.{proposals}\.(\w+)", r"model.queries.heads.class_head.0.\1"),
        rule(rf"bbox_embed\.{proposals}\.(.+)", r"model.queries.heads.box_head.0.\1"),
    ]
    per_layer = config.box_refinement == "per_layer"
    index = r"\1" if per_layer else "0"
    rules += [
        rule(r"class_embed\.(\d+)\.(\w+)", rf"model.heads.class_head.{index}.\2"),
        rule(r"bbox_embed\.(\d+)\.(.+)", rf"model.heads.box_head.{index}.\2"),
    ]
    return rules


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors of a `.pth`/`.bin` file (read without executing anything) or of a `.safetensors` file.

    Raises:
        ConversionError: when the file holds anything but tensors and plain containers, or no state dict.
    """
    if str(path).endswith(".safetensors"):
        return load_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the originals save their options beside
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ConversionError(f"{path} cannot be read as a checkpoint of plain tensors: {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConversionError(f"{path} holds no state dict: a mapping of names to tensors was expected.")
    return dict(content)


def load_published_checkpoint(
    checkpoint: str | os.PathLike | Mapping[str, Tensor], preset: str | HfDetrConfig
) -> HfDetrForObjectDetection:
    """Return a model with the weights that the authors published.

    Args:
        checkpoint: path of their `.pth` file, or its state dict (with or without the outer "model").
        preset: name of the model, as in `available_presets()`, or its config.

    Returns:
        The model, in evaluation mode, float32 unless the checkpoint is of another dtype throughout.

    Raises:
        ConversionError: listing every key that is left over or missing.
        ValueError: for an unknown preset.
    """
    config = HfDetrConfig.from_preset(preset) if isinstance(preset, str) else preset
    state_dict = dict(checkpoint) if isinstance(checkpoint, Mapping) else read_checkpoint(checkpoint)
    state_dict = dict(state_dict.get("model", state_dict))
    model = HfDetrForObjectDetection(config)
    model.load_state_dict(convert_state_dict(state_dict, published_key_table(config), model))
    return model.eval()
