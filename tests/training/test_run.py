"""The model that a run builds for its data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from hf_detr import HfDetrImageProcessor
from hf_detr.data import category_names, detection_features
from hf_detr.training import run
from hf_detr.training.options import RunOptions


def test_a_model_takes_the_category_ids_of_its_data(
    build_model: Callable, image_processor: HfDetrImageProcessor, train_data: Dataset, tmp_path: Path
):
    names = category_names(train_data)
    before = {name: label for label, name in enumerate(names, start=1)}
    build_model(category_ids=before).save_pretrained(tmp_path)
    image_processor.save_pretrained(tmp_path)
    options = RunOptions(data="", output=tmp_path, model=str(tmp_path))
    ids = {name: 10 * label for label, name in enumerate(names)}
    known = train_data.cast(detection_features(names, instance_masks=True, category_ids=ids))
    assert run.build_model(options, known)[0].config.category_ids == ids
    # the data have no ids, and those of the data before mean nothing any more
    assert run.build_model(options, train_data)[0].config.category_ids is None


def test_weights_that_contradict_the_configuration_are_named(
    build_model: Callable, image_processor: HfDetrImageProcessor, train_data: Dataset, tmp_path: Path
):
    """Only what has a row for each class may have another shape."""
    model = build_model()
    model.save_pretrained(tmp_path)
    image_processor.save_pretrained(tmp_path)
    model.config.update({"id2label": {0: "other", 1: "names"}})
    model.config.save_pretrained(tmp_path)
    options = RunOptions(data="", output=tmp_path, model=str(tmp_path))
    assert run.build_model(options, train_data)[0].config.num_labels == len(category_names(train_data))
    model.config.encoder_ffn_dim *= 2
    model.config.save_pretrained(tmp_path)
    expected = r"other shapes than the configuration asks for: model\.encoder\.layers\.0\.ffn\.fc1\.bias \(\d+,\)"
    with pytest.raises(ValueError, match=expected):
        run.build_model(options, train_data)
