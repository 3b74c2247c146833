"""Fields of the configuration from the command line: what is read, and what is refused in which words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from typer.testing import CliRunner

from hf_detr import HfDetrConfig
from hf_detr.cli import app
from hf_detr.data import detection_features
from hf_detr.training.options import RunOptions
from hf_detr.training.run import build_model
from hf_detr.training.settings import check_settings, parse_settings

TINY = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_layers": 1}


def data_of(names: list[str]) -> Dataset:
    """A data set with these classes and no image."""
    features = detection_features(names)
    return Dataset.from_dict({name: [] for name in features}, features=features)


def test_values_are_json_or_text():
    read = parse_settings(
        ["num_queries=50", "dropout = 1e-1", "classification=varifocal", "dilation=true", 'backbone_kwargs={"a": [1]}']
    )
    assert read == {
        "num_queries": 50,
        "dropout": 0.1,
        "classification": "varifocal",
        "dilation": True,
        "backbone_kwargs": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["num_queries"], "--set num_queries: expected NAME=VALUE"),
        (["=3"], "--set =3: expected NAME=VALUE"),
        (["num_labels=3"], "--set num_labels=3: the classes come from the data"),
        (["dropout=0", "dropout=0.1"], r"--set dropout=0.1: dropout is set twice"),
    ],
)
def test_what_cannot_be_read_is_quoted(settings: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        parse_settings(settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_querys": 5}, "no field 'num_querys'.*num_queries"),
        ({"num_queries": "many"}, "num_queries.*many"),
        ({"dilation": "True"}, "dilation.*True"),
        ({"classification": "hinge"}, "classification.*hinge"),
        ({"model_type": "detr"}, "model_type=detr: this field cannot be set.*model_type=hf_detr"),
        ({"dropout": 5}, "dropout=5: allowed is at least 0 and below 1"),
        ({"num_channels": 4}, "num_channels=4: must be 3, as pictures of data sets are read as RGB"),
        ({"denoising": "none", "num_feature_levels": 4, "encoder": "dense"}, "num_feature_levels=4"),
    ],
)
def test_a_configuration_that_would_not_do_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        check_settings(HfDetrConfig.from_preset("tiny"), fields)


def test_a_model_is_built_and_loaded_with_the_fields(tmp_path: Path):
    fields = {**TINY, "classification": "varifocal"}
    built, processor = build_model(RunOptions(data="", output=tmp_path, config_overrides=fields), data_of(["a", "b"]))
    assert (built.config.d_model, built.config.classification, built.config.id2label[1]) == (32, "varifocal", "b")
    assert processor.classification == "sigmoid"
    built.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    options = RunOptions(data="", output=tmp_path, model=str(tmp_path), config_overrides={"dropout": 0.3})
    loaded, _ = build_model(options, data_of(["a", "b"]))
    assert (loaded.config.dropout, loaded.config.classification) == (0.3, "varifocal")
    wrong = RunOptions(data="", output=tmp_path, model=str(tmp_path), config_overrides={"dropot": 0.3})
    with pytest.raises(ValueError, match=r"no field 'dropot'.*dropout"):
        build_model(wrong, data_of(["a", "b"]))


def test_fine_tuning_keeps_the_rows_of_classes_by_name(tmp_path: Path):
    """As `hf-detr train --model` builds it, for data with other classes in another order."""
    built, processor = build_model(
        RunOptions(data="", output=tmp_path, config_overrides=TINY), data_of(["red", "cell", "blue"])
    )
    for part in (built, processor):
        part.save_pretrained(tmp_path)
    loaded, _ = build_model(
        RunOptions(data="", output=tmp_path, model=str(tmp_path)), data_of(["blue", "green", "red", "a"])
    )
    before, after = (model.model.heads.class_head[0].weight for model in (built, loaded))
    assert torch.equal(after[[0, 2]], before[[2, 0]])
    assert not torch.isin(after[[1, 3]], before).any()
    assert list(loaded.config.id2label.values()) == ["blue", "green", "red", "a"]


def test_the_command_line_refuses_in_one_line_and_writes_nothing(tmp_path: Path):
    result = CliRunner().invoke(
        app, ["train", "--data", "synthetic", "--output", str(tmp_path / "model"), "--set", "num_queries"]
    )
    assert result.exit_code == 2
    assert "hf-detr: --set num_queries: expected NAME=VALUE" in result.output
    assert not (tmp_path / "model").exists()
