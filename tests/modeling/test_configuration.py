"""The choices: presets, unknown fields, combinations that mean nothing, and what is saved."""

import json
from pathlib import Path

import pytest

from hf_detr import HfDetrConfig, available_presets


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
        ({"num_queries": 0}, "num_queries=0"),
        ({"decoder_layers": 0}, "decoder_layers=0"),
        ({"d_model": 100}, "encoder_attention_heads=8"),
        ({"d_model": 6, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, "multiple of 4"),
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


@pytest.mark.parametrize("fields", [{"encoder": "sparse"}, {"classification": "hinge"}, {"query_reference": "line"}])
def test_an_undefined_choice_names_field_and_value(fields: dict):
    (field, value), *_ = fields.items()
    with pytest.raises(Exception, match=f"{field}(.|\n)*{value}"):
        HfDetrConfig(**fields)


def test_category_ids_of_the_data_are_saved_with_the_model(tmp_path: Path):
    ids = {"cat": 18, "dog": "d-2"}
    HfDetrConfig(id2label={0: "cat", 1: "dog"}, category_ids=ids).save_pretrained(tmp_path)
    assert HfDetrConfig.from_pretrained(tmp_path).category_ids == ids
