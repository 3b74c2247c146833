"""The choices: presets, unknown fields, combinations that mean nothing, and what is saved."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest
from transformers import PreTrainedConfig

from hf_detr import HfDetrConfig, available_presets

DEFORMABLE = {"encoder": "deformable", "cross_attention": "deformable", "query_reference": "point"}


def test_every_preset_survives_saving(tmp_path: Path):
    for name in available_presets():
        config = HfDetrConfig.from_preset(name)
        config.save_pretrained(tmp_path)
        assert HfDetrConfig.from_pretrained(tmp_path).to_dict() == config.to_dict(), name


def test_published_presets_name_the_91_coco_ids():
    config = HfDetrConfig.from_preset("dino-resnet-50-4scale")
    assert config.num_labels == 91
    assert config.id2label[1] == "person"
    assert config.id2label[90] == "toothbrush"
    assert config.label2id["person"] == 1


@pytest.mark.parametrize("override", [{"num_labels": 3}, {"id2label": {0: "a", 1: "b", 2: "c"}}])
def test_new_classes_replace_the_published_ones(override: dict):
    config = HfDetrConfig.from_preset("detr-resnet-50", **override)
    assert config.num_labels == 3
    assert "person" not in config.id2label.values()


def test_an_override_wins_over_the_preset():
    assert HfDetrConfig.from_preset("dino-resnet-50-4scale", num_queries=7).num_queries == 7


@pytest.mark.parametrize(
    ("given", "suggested"), [("dino", "dino-resnet-50-"), ("deformable-resnet-50", "deformable-detr-resnet-50")]
)
def test_an_unknown_preset_suggests_the_nearest(given: str, suggested: str):
    with pytest.raises(ValueError, match=f"no preset '{given}'.*{suggested}"):
        HfDetrConfig.from_preset(given)


def test_a_name_like_no_other_lists_all_presets():
    with pytest.raises(ValueError, match="Available: detr-resnet-50, "):
        HfDetrConfig.from_preset("zzzzzz")


@pytest.mark.parametrize("make", [HfDetrConfig, lambda **fields: HfDetrConfig.from_preset("tiny", **fields)])
def test_an_unknown_field_is_refused_with_a_suggestion(make):
    with pytest.raises(ValueError, match=r"no field 'num_querys' \(given num_querys=10\).*num_queries"):
        make(num_querys=10)


def test_an_unknown_field_in_a_saved_file_is_refused(tmp_path: Path):
    HfDetrConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"focal_gama": 2}))
    with pytest.raises(ValueError, match="focal_gama"):
        HfDetrConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"d_model": 100}, "encoder_attention_heads=8"),
        ({"d_model": 6, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, "multiple of 4"),
        ({**DEFORMABLE, "d_model": 48}, "d_model=48: a multiple of 32"),
        ({"num_feature_levels": 4}, "num_feature_levels=4"),
        ({"encoder": "deformable", "query_reference": "point"}, "cross_attention='dense'"),
        ({"cross_attention": "conditional"}, "query_reference='none'"),
        ({"box_refinement": "per_layer"}, "query_reference is 'none'"),
        ({"query_position": "sine"}, "allowed are 'box' and 'selected'"),
        ({"query_reference": "selected"}, "encoder='deformable'"),
        ({"distinct_iou": 0.7}, "distinct_iou=0.7, query_reference='none'.*'selected'"),
        ({"query_content": "memory"}, "query_content='memory'.*allowed is 'selected'"),
        ({"query_content": "token"}, "query_content='token'.*allowed is 'selected'"),
        ({"denoising": "dn"}, "query_position='sine'"),
        ({"denoising": "dn", "query_position": "sine", "query_reference": "box"}, "allowed are 'focal', 'varifocal'"),
        ({"category_ids": {"cat": 3, "dog": 3}}, "'dog': 3}: each class needs an id of its own"),
    ],
)
def test_combinations_that_mean_nothing_are_refused(fields: dict, named: str):
    with pytest.raises(ValueError, match=named):
        HfDetrConfig(**fields)


# Each row: fields, what their numbers must be in the words of the message, and numbers that they must not be.
RANGES = [
    (
        "num_channels d_model decoder_layers encoder_attention_heads decoder_attention_heads encoder_ffn_dim "
        "decoder_ffn_dim num_queries encoder_n_points decoder_n_points",
        "1 or more",
        (0, -1),
    ),
    ("num_feature_levels", "from 1 to 8", (0, 9)),
    ("encoder_layers num_denoising", "0 or more", (-1,)),
    (
        "box_noise_scale class_cost bbox_cost giou_cost class_loss_coefficient bbox_loss_coefficient "
        "giou_loss_coefficient eos_coefficient",
        "0 or more",
        (-0.1, math.nan, math.inf),
    ),
    ("frozen_stages", "-1 or more", (-2,)),
    ("position_temperature", "above 0", (0, -20, math.nan, math.inf)),
    ("position_offset", "a finite number", (math.nan, -math.inf)),
    ("inverse_sigmoid_eps", "above 0 and below 0.5", (0.0, -1e-5, 0.5)),
    ("distinct_iou", "above 0 and at most 1", (0, 1.5)),
    ("focal_alpha label_noise_ratio", "from 0 to 1", (-0.1, 1.1, math.nan)),
    ("dropout attention_dropout activation_dropout", "at least 0 and below 1", (-0.1, 1, 5)),
]


@pytest.mark.parametrize(
    ("field", "allowed", "number"),
    [
        (field, allowed, number)
        for fields, allowed, numbers in RANGES
        for field in fields.split()
        for number in numbers
    ],
)
def test_a_number_out_of_its_range_names_field_value_and_range(field: str, allowed: str, number: float):
    with pytest.raises(ValueError) as refused:
        HfDetrConfig(**{field: number})
    assert str(refused.value) == f"HfDetrConfig: {field}={number!r}: allowed is {allowed}."


def test_every_number_of_the_configuration_has_a_range():
    inherited = set(PreTrainedConfig.__dataclass_fields__)
    numbers = {
        name
        for name, field in HfDetrConfig.__dataclass_fields__.items()
        if name not in inherited and {int, float} & {field.type, *get_args(field.type)}
    }
    assert numbers == {field for fields, _, _ in RANGES for field in fields.split()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation_function": "rulu"}, "activation_function='rulu' is not known; did you mean relu"),
        ({"activation_function": "zzz"}, "activation_function='zzz' is not known; known are gelu, "),
        (
            {"learning_rate_multipliers": {"heads": -1}},
            r"learning_rate_multipliers={'heads': -1}: each factor must",
        ),
        ({"learning_rate_multipliers": {"heads": "a"}}, r"learning_rate_multipliers={'heads': 'a'}: each factor"),
    ],
)
def test_names_and_factors_that_cannot_be_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        HfDetrConfig(**fields)


@pytest.mark.parametrize("fields", [{"encoder": "sparse"}, {"classification": "hinge"}, {"query_reference": "line"}])
def test_an_undefined_choice_names_field_and_value(fields: dict):
    (field, value), *_ = fields.items()
    with pytest.raises(Exception, match=f"{field}(.|\n)*{value}"):
        HfDetrConfig(**fields)


def test_category_ids_of_the_data_are_saved_with_the_model(tmp_path: Path):
    ids = {"cat": 18, "dog": "d-2"}
    HfDetrConfig(id2label={0: "cat", 1: "dog"}, category_ids=ids).save_pretrained(tmp_path)
    assert HfDetrConfig.from_pretrained(tmp_path).category_ids == ids


def test_fields_given_to_loading_are_checked_as_well(tmp_path: Path):
    HfDetrConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="dropout=5: allowed is"):
        HfDetrConfig.from_pretrained(tmp_path, dropout=5)
