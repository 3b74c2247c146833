"""Image processors made for a configuration: classifier, channels, their statistics, sizes; and what saving keeps."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DetrImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_detr import HfDetrConfig, HfDetrImageProcessor, HfDetrImageProcessorPil, available_presets
from hf_detr.processing.model_settings import classification_of, pixel_statistics

IMAGENET = (list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
HALVES = ([0.5] * 3, [0.5] * 3)


@pytest.fixture(params=[HfDetrImageProcessor, HfDetrImageProcessorPil], ids=["torchvision", "pil"])
def backend(request):
    return request.param


@pytest.mark.parametrize("preset", available_presets())
def test_published_models_get_what_they_were_trained_with(preset):
    config = HfDetrConfig.from_preset(preset)
    processor = HfDetrImageProcessor.for_config(config)
    softmax = preset.startswith("detr-")
    expected = HfDetrImageProcessor(classification="softmax" if softmax else "sigmoid").to_dict()
    made = processor.to_dict()
    for name in ("image_mean", "image_std"):
        assert tuple(made.pop(name)) == tuple(expected.pop(name))
    assert made == expected


@pytest.mark.parametrize(
    ("backbone", "arguments", "expected"),
    [
        ("resnet18", {}, IMAGENET),
        ("tf_efficientnet_lite0", {}, HALVES),
        ("tf_efficientnet_lite0.in1k", None, HALVES),
        ("vit_base_patch16_224", {}, HALVES),
        ("vit_base_patch16_224.dino", {}, IMAGENET),
        ("vit_base_patch16_224", {"pretrained_cfg": "dino"}, IMAGENET),
        ("resnet18", {"pretrained_cfg_overlay": {"mean": (0.1, 0.2, 0.3)}}, ([0.1, 0.2, 0.3], IMAGENET[1])),
        ("resnet18", {"pretrained_cfg": {"mean": (0.5,) * 3, "std": (0.5,) * 3}}, HALVES),
        ("a_backbone_of_somebody_else", {}, IMAGENET),
    ],
)
def test_statistics_are_those_of_the_pretrained_backbone(backbone, arguments, expected):
    assert pixel_statistics(SimpleNamespace(backbone=backbone, backbone_kwargs=arguments)) == expected


def test_pretrained_weights_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"backbone='resnet18\.none'.*none"):
        pixel_statistics(SimpleNamespace(backbone="resnet18.none", backbone_kwargs=None))


def test_other_numbers_of_channels(backend):
    config = HfDetrConfig.from_preset("tiny", num_channels=4)
    processor = backend.for_config(config, size={"height": 8, "width": 8})
    assert tuple(processor.image_mean) == (*IMAGENET[0], IMAGENET[0][0])
    batch = processor(np.zeros((8, 8, 4), np.uint8), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 4, 8, 8)
    grey = backend.for_config(HfDetrConfig.from_preset("tiny", num_channels=1), size={"height": 8, "width": 8})
    assert grey(np.zeros((8, 8), np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 1, 8, 8)
    assert list(grey.image_mean) == [pytest.approx(sum(IMAGENET[0]) / 3)]


def test_every_classification_but_softmax_is_sigmoid():
    for classification, expected in (("softmax", "softmax"), ("focal", "sigmoid"), ("matchability", "sigmoid")):
        assert classification_of(SimpleNamespace(classification=classification)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, {"shortest_edge": 800, "longest_edge": 1333}),
        (256, {"shortest_edge": 256, "longest_edge": 427}),
        ({"height": 96, "width": 128}, {"height": 96, "width": 128}),
    ],
)
def test_size(backend, size, expected):
    processor = backend.for_config(HfDetrConfig.from_preset("tiny"), size, do_pad=False)
    assert type(processor) is backend
    assert dict(processor.size) == expected
    assert processor.do_pad is False


def test_unknown_settings_are_refused(backend):
    with pytest.raises(ValueError, match=r"no setting \['sizes'\]"):
        backend.for_config(HfDetrConfig.from_preset("tiny"), sizes=3)


def test_saved_statistics_are_kept_whatever_the_backbone(backend, tmp_path):
    """Those of this package and of other libraries: what a model was trained with is in its file."""
    config = HfDetrConfig.from_preset("tiny", backbone="tf_efficientnet_lite0", backbone_kwargs=None)
    backend.for_config(config, 64).save_pretrained(tmp_path / "ours")
    ours = backend.from_pretrained(tmp_path / "ours")
    assert (list(ours.image_mean), list(ours.image_std)) == HALVES
    picture = np.full((64, 64, 3), 255, np.uint8)
    assert torch.equal(ours(picture, return_tensors="pt")["pixel_values"], torch.ones(1, 3, 64, 64))

    config.save_pretrained(tmp_path / "theirs")
    DetrImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path / "theirs")
    theirs = backend.from_pretrained(tmp_path / "theirs")
    assert (list(theirs.image_mean), list(theirs.image_std)) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
