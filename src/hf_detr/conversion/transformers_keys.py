"""Renames the weights of transformers' own DETR models to ours, in every layout that transformers has written.

A pattern spells the layouts as alternatives: before version 5 the backbone stood in a `conv_encoder` (and the position
embedding beside it), the feed-forward layers directly in their layer, and the projections that Conditional DETR and
DAB-DETR add beside the attention; `out_proj` became `o_proj`. Version 5 still writes the older layout by default.
"""

from ..modeling.configuration import HfDetrConfig
from .key_tables import Rule, rule

_BACKBONE = r"model\.backbone\.(?:conv_encoder\.)?model\.(?:_backbone\.)?"
_BODY = "model.backbone.body."
_LAYER = r"model\.(encoder|decoder)\.layers\.(\d+)\."
_DECODER_LAYER = r"model\.decoder\.layers\.(\d+)\."
_TO = r"model.\1.layers.\2."
_TO_DECODER = r"model.decoder.layers.\1."

# transformers' ResNet has names of its own. A backbone with these names is built as the ResNet of timm.
_RESNET = [
    rule(_BACKBONE + r"embedder\.embedder\.convolution\.(\w+)", _BODY + r"conv1.\1"),
    rule(_BACKBONE + r"embedder\.embedder\.normalization\.(\w+)", _BODY + r"bn1.\1"),
]
for _stage in range(4):
    _theirs, _ours = _BACKBONE + rf"encoder\.stages\.{_stage}\.layers\.(\d+)\.", _BODY + rf"layer{_stage + 1}.\1."
    _RESNET += [
        rule(_theirs + r"shortcut\.convolution\.(\w+)", _ours + r"downsample.0.\2"),
        rule(_theirs + r"shortcut\.normalization\.(\w+)", _ours + r"downsample.1.\2"),
    ]
    for _index in range(3):
        _RESNET += [
            rule(_theirs + rf"layer\.{_index}\.convolution\.(\w+)", _ours + rf"conv{_index + 1}.\2"),
            rule(_theirs + rf"layer\.{_index}\.normalization\.(\w+)", _ours + rf"bn{_index + 1}.\2"),
        ]

_COMMON = [
    rule(r".+\.num_batches_tracked"),
    *_RESNET,
    rule(_BACKBONE + r"(.+)", _BODY + r"\1"),
    rule(
        r"model\.(?:backbone\.)?position_embedding\.(row|column)_embeddings\.weight",
        r"model.backbone.position_embedding.\1_embedding.weight",
    ),
    rule(r"model\.input_projection\.(\w+)", r"model.backbone.projections.0.\1"),
    rule(_LAYER + r"self_attn\.([qkv]_proj)\.(\w+)", _TO + r"self_attn.\3.\4"),
    rule(_LAYER + r"self_attn\.(?:out|o)_proj\.(\w+)", _TO + r"self_attn.out_proj.\3"),
    rule(_LAYER + r"(?:mlp\.)?(fc[12])\.(\w+)", _TO + r"ffn.\3.\4"),
    rule(_LAYER + r"(?:mlp\.)?activation_fn\.weight", _TO + r"ffn.activation.weight"),
    rule(_LAYER + r"self_attn_layer_norm\.(\w+)", _TO + r"self_attn_norm.\3"),
    rule(_LAYER + r"(?:mlp\.)?final_layer_norm\.(\w+)", _TO + r"ffn_norm.\3"),
    rule(_DECODER_LAYER + r"encoder_attn_layer_norm\.(\w+)", _TO_DECODER + r"cross_attn_norm.\2"),
    rule(r"model\.decoder\.layernorm\.(\w+)", r"model.decoder.norm.\1"),
    rule(r"class_labels_classifier\.(\w+)", r"model.heads.class_head.0.\1"),
    rule(r"bbox_predictor\.(.+)", r"model.heads.box_head.0.\1"),
]

_DENSE = [
    rule(_DECODER_LAYER + r"encoder_attn\.([qkv]_proj)\.(\w+)", _TO_DECODER + r"cross_attn.\2.\3"),
    rule(_DECODER_LAYER + r"encoder_attn\.(?:out|o)_proj\.(\w+)", _TO_DECODER + r"cross_attn.out_proj.\2"),
    rule(r"model\.query_position_embeddings\.weight", "model.queries.position.weight"),
]


def _projections(attention: str, name: str, *spellings: str) -> Rule:
    """Return the rule of one projection of the decoder's content or positions, in all its spellings."""
    pattern = _DECODER_LAYER + f"(?:{'|'.join(spellings)})" + r"\.(\w+)"
    return rule(pattern, _TO_DECODER + rf"{attention}.{name}.\2")


_CONDITIONAL = [
    *(
        _projections(ours, f"{p}_{role}_proj", rf"{older}_{p}{part}_proj", rf"{theirs}\.{p}_{part}_proj")
        for ours, theirs, older in (("self_attn", "self_attn", "sa"), ("cross_attn", "encoder_attn", "ca"))
        for p in "qk"
        for part, role in (("content", "content"), ("pos", "position"))
    ),
    _projections("self_attn", "v_proj", r"sa_v_proj"),
    _projections("cross_attn", "v_proj", r"ca_v_proj", r"encoder_attn\.v_proj"),
    _projections("cross_attn", "q_spatial_proj", r"ca_qpos_sine_proj", r"encoder_attn\.q_pos_sine_proj"),
    _projections("cross_attn", "out_proj", r"encoder_attn\.(?:out|o)_proj"),
    rule(r"model\.decoder\.query_scale\.(.+)", r"model.decoder.spatial.scale.\1"),
    rule(r"model\.decoder\.ref_point_head\.(.+)", r"model.queries.reference_point.\1"),
    *_DENSE[2:],
]

_DAB = [
    *(
        _projections(f"{kind}_attn", f"{p[0]}_{role}_proj", rf"{kind}_attn\.{kind}_attn_{p}_{part}_proj")
        for kind in ("self", "cross")
        for p in ("query", "key")
        for part, role in (("content", "content"), ("pos", "position"))
    ),
    _projections("self_attn", "v_proj", r"self_attn\.self_attn_value_proj"),
    _projections("cross_attn", "v_proj", r"cross_attn\.cross_attn_value_proj"),
    _projections("cross_attn", "q_spatial_proj", r"cross_attn\.cross_attn_query_pos_sine_proj"),
    _projections("self_attn", "out_proj", r"self_attn\.self_attn\.output_proj"),
    _projections("cross_attn", "out_proj", r"cross_attn\.cross_attn\.output_proj"),
    rule(_DECODER_LAYER + r"self_attn\.self_attn_layer_norm\.(\w+)", _TO_DECODER + r"self_attn_norm.\2"),
    rule(_DECODER_LAYER + r"cross_attn\.cross_attn_layer_norm\.(\w+)", _TO_DECODER + r"cross_attn_norm.\2"),
    rule(r"model\.encoder\.query_scale\.(.+)", r"model.encoder.position_scale.\1"),
    rule(r"model\.decoder\.query_scale\.(.+)", r"model.decoder.spatial.scale.\1"),
    rule(r"model\.decoder\.ref_anchor_head\.(.+)", r"model.decoder.spatial.size.\1"),
    rule(r"model\.decoder\.ref_point_head\.(.+)", r"model.decoder.position.head.\1"),
    rule(r"model\.query_refpoint_embeddings\.weight", "model.queries.reference_box.weight"),
    rule(r"class_embed\.(\w+)", r"model.heads.class_head.0.\1"),
    rule(r"model\.decoder\.bbox_embed\.(.+)", r"model.heads.box_head.0.\1"),  # the box head once more
]

_SAMPLING = r"(sampling_offsets|attention_weights|value_proj|output_proj)\.(\w+)"
_DEFORMABLE = [
    rule(r"model\.encoder\.layers\.(\d+)\.self_attn\." + _SAMPLING, r"model.encoder.layers.\1.self_attn.\2.\3"),
    rule(_DECODER_LAYER + r"encoder_attn\." + _SAMPLING, _TO_DECODER + r"cross_attn.\2.\3"),
    rule(r"model\.level_embed", "model.encoder.level_embedding"),
    rule(r"model\.input_proj\.(\d+)\.([01])\.(\w+)", r"model.backbone.projections.\1.\2.\3"),
    rule(
        r"model\.query_position_embeddings\.weight",
        "model.queries.position.weight",
        "model.queries.content.weight",
        dim=1,
    ),
    rule(r"model\.reference_points\.(\w+)", r"model.queries.reference_point.layers.0.\1"),
    rule(r"model\.enc_output\.(\w+)", r"model.queries.projection.\1"),
    rule(r"model\.enc_output_norm\.(\w+)", r"model.queries.projection_norm.\1"),
    rule(r"model\.pos_trans\.(\w+)", r"model.queries.reference_projection.\1"),
    rule(r"model\.pos_trans_norm\.(\w+)", r"model.queries.reference_norm.\1"),
]


def _deformable_heads(config: HfDetrConfig) -> list[Rule]:
    """Return the rules of one head a layer, held twice by decoders that refine. The last head scores proposals."""
    rules = []
    for theirs, ours in (("class_embed", "class_head"), ("bbox_embed", "box_head")):
        pattern = rf"(?:model\.decoder\.)?{theirs}\."
        index = r"\1" if config.box_refinement == "per_layer" else "0"
        rules += [
            rule(pattern + rf"{config.decoder_layers}\.(.+)", rf"model.queries.heads.{ours}.0.\1"),
            rule(pattern + r"(\d+)\.(.+)", rf"model.heads.{ours}.{index}.\2"),
        ]
    return rules


def transformers_key_table(config: HfDetrConfig) -> list[Rule]:
    """Return the key table for a folder that transformers' own model of this kind has saved."""
    if config.cross_attention == "deformable":
        return [*_DEFORMABLE, *_COMMON, *_deformable_heads(config)]
    if config.query_reference == "box":
        return [*_DAB, *_COMMON]
    return [*(_CONDITIONAL if config.cross_attention == "conditional" else _DENSE), *_COMMON]
