"""Each published model as its difference from another. A row may start from a parent row."""

import difflib
from typing import Any

# The 91 category ids of COCO; ids without a category are "N/A". Published heads use these ids as labels.
_COCO_NAMES = (  # noqa: SIM905 - a list would take 91 lines
    "N/A,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,"
    "fire hydrant,N/A,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,"
    "bear,zebra,giraffe,N/A,backpack,umbrella,N/A,N/A,handbag,tie,suitcase,frisbee,skis,"
    "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,"
    "bottle,N/A,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,"
    "carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,N/A,dining table,N/A,N/A,"
    "toilet,N/A,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,N/A,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")

_FOCAL = {"classification": "focal", "class_cost": 2, "class_loss_coefficient": 2}
_DN = {"denoising": "dn", "num_denoising": 5, "label_noise_ratio": 0.2, "box_noise_scale": 0.4}

_PRESETS: dict[str, dict[str, Any]] = {
    # Carion et al. 2020, facebookresearch/detr
    "detr-resnet-50": {"id2label": dict(enumerate(_COCO_NAMES)), "backbone": "resnet50.tv_in1k"},
    "detr-resnet-50-dc5": {"parent": "detr-resnet-50", "dilation": True},
    "detr-resnet-101": {"parent": "detr-resnet-50", "backbone": "resnet101.tv_in1k"},
    "detr-resnet-101-dc5": {"parent": "detr-resnet-101", "dilation": True},
    # Meng et al. 2021, Atten4Vis/ConditionalDETR
    "conditional-detr-resnet-50": {
        "parent": "detr-resnet-50",
        "cross_attention": "conditional",
        "query_reference": "point",
        "num_queries": 300,
        **_FOCAL,
    },
    # Liu et al. 2022, IDEA-Research/DAB-DETR
    "dab-detr-resnet-50": {
        "parent": "conditional-detr-resnet-50",
        "query_reference": "box",
        "query_position": "sine",
        "box_refinement": "look_forward_twice",
        "encoder_position_scale": True,
        "position_temperature": 20,
        "activation_function": "prelu",
        "inverse_sigmoid_eps": 1e-3,
        "class_loss_coefficient": 1,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    },
    # Li et al. 2022, IDEA-Research/DN-DETR
    "dn-detr-resnet-50": {"parent": "dab-detr-resnet-50", **_DN},
    # Zhu et al. 2021, fundamentalvision/Deformable-DETR
    "deformable-detr-resnet-50": {
        "parent": "detr-resnet-50",
        "encoder": "deformable",
        "cross_attention": "deformable",
        "num_feature_levels": 4,
        "position_offset": -0.5,
        "encoder_ffn_dim": 1024,
        "decoder_ffn_dim": 1024,
        "query_content": "learned",
        "query_reference": "point",
        "decoder_norm": False,
        "num_queries": 300,
        "learning_rate_multipliers": {"backbone.body": 0.1, "reference_point": 0.1, "sampling_offsets": 0.1},
        **_FOCAL,
    },
    "deformable-detr-resnet-50-single-scale": {"parent": "deformable-detr-resnet-50", "num_feature_levels": 1},
    "deformable-detr-resnet-50-single-scale-dc5": {
        "parent": "deformable-detr-resnet-50-single-scale",
        "dilation": True,
    },
    "deformable-detr-resnet-50-refine": {"parent": "deformable-detr-resnet-50", "box_refinement": "per_layer"},
    "deformable-detr-resnet-50-two-stage": {
        "parent": "deformable-detr-resnet-50-refine",
        "query_reference": "selected",
        "query_content": "memory",
    },
    # The two sets of differences together, as in the repositories of DAB-DETR and DN-DETR
    "dab-deformable-detr-resnet-50": {
        "parent": "deformable-detr-resnet-50-refine",
        "query_reference": "box",
        "query_position": "sine",
        "query_position_scale": True,
        "inverse_sigmoid_eps": 1e-3,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "class_loss_coefficient": 1,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "learning_rate_multipliers": {"backbone.body": 0.1},
    },
    "dn-deformable-detr-resnet-50": {"parent": "dab-deformable-detr-resnet-50", **_DN},
    # Zhang et al. 2022, IDEA-Research/DINO
    "dino-resnet-50-4scale": {
        "parent": "dab-deformable-detr-resnet-50",
        "query_position_scale": False,
        "query_reference": "selected",
        "num_queries": 900,
        "box_refinement": "look_forward_twice",
        "decoder_norm": True,
        "position_temperature": 20,
        "position_offset": 0.0,
        "denoising": "contrastive",
        "num_denoising": 100,
        "label_noise_ratio": 0.5,
        "box_noise_scale": 0.4,
    },
    "dino-resnet-50-5scale": {"parent": "dino-resnet-50-4scale", "num_feature_levels": 5},
    "dino-swin-large-4scale": {
        "parent": "dino-resnet-50-4scale",
        "backbone": "swin_large_patch4_window12_384.ms_in22k",
        "backbone_kwargs": {"drop_path_rate": 0.2},
        "backbone_output_norm": True,
        "learning_rate_multipliers": {"backbone.body": 0.1, "backbone.norms": 0.1},
        "frozen_stages": -1,
    },
    # Ours: DINO made small, for training from scratch on a laptop, for tests and for the demo
    "tiny": {
        "parent": "dino-resnet-50-4scale",
        "id2label": None,
        "backbone": "resnet18",
        # half as wide, with a stem of three convolutions: more steps in the same time teach it more
        "backbone_kwargs": {"channels": [32, 64, 128, 256], "stem_type": "deep", "stem_width": 16},
        "freeze_batch_norm": False,
        "frozen_stages": -1,
        "d_model": 128,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "num_queries": 100,
        "num_denoising": 40,
        "query_content": "token",
        # Two layers of the decoder cannot tell all repetitions apart: 4 AP and AP50 above it after 20 passes over the
        # built-in data (one seed)
        "distinct_iou": 0.7,
        # 3 AP above the focal loss after 300 steps on the built-in data (two seeds, a backbone of full width)
        "classification": "matchability",
        "learning_rate_multipliers": {},
    },
}


def available_presets() -> list[str]:
    """Names that `HfDetrConfig.from_preset` accepts."""
    return list(_PRESETS)


def get_preset(name: str) -> dict[str, Any]:
    """All fields of a preset that differ from the defaults of `HfDetrConfig`, parents resolved.

    Raises:
        ValueError: for an unknown name; the nearest ones are suggested.
    """
    if name not in _PRESETS:
        containing = [preset for preset in _PRESETS if name.lower() in preset]
        nearest = (containing or difflib.get_close_matches(name, _PRESETS, n=3, cutoff=0.4))[:3]
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Available: {', '.join(_PRESETS)}."
        raise ValueError(f"There is no preset '{name}'. {hint}")
    fields = dict(_PRESETS[name])
    parent = fields.pop("parent", None)
    return {**get_preset(parent), **fields} if parent else fields
