import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DetrConfig, RTDetrConfig

from hf_detr import HfDetrConfig, HfDetrImageProcessor
from hf_detr.registration import tell_sahi_of_sigmoids
from modeling.tiny import tiny_model

NAMES = {0: "cat", 1: "dog"}


def sahi_of_our_own():
    """Return a module whose detector knows sigmoid models by the name of their configuration."""

    class HuggingfaceDetectionModel:
        def __init__(self, config):
            self.model = SimpleNamespace(config=config)

        @property
        def _uses_sigmoid_cls(self):
            return type(self.model.config).__name__.startswith("RTDetr")

    module = ModuleType("sahi.models.huggingface")
    module.HuggingfaceDetectionModel = HuggingfaceDetectionModel
    return module


@pytest.mark.parametrize(
    ("config", "sigmoid"),
    [
        (HfDetrConfig(classification="focal"), True),
        (HfDetrConfig(classification="varifocal"), True),
        (HfDetrConfig(classification="softmax"), False),
        (RTDetrConfig(), True),
        (DetrConfig(), False),
        (None, False),
    ],
    ids=["focal", "varifocal", "softmax", "rt-detr", "detr", "no configuration"],
)
def test_sahi_asks_our_models_and_decides_itself_about_others(config, sigmoid):
    sahi = sahi_of_our_own()
    tell_sahi_of_sigmoids(sahi)
    assert sahi.HuggingfaceDetectionModel(config)._uses_sigmoid_cls is sigmoid


def test_another_sahi_is_left_alone():
    tell_sahi_of_sigmoids(ModuleType("sahi.models.huggingface"))
    sahi = sahi_of_our_own()
    del sahi.HuggingfaceDetectionModel._uses_sigmoid_cls
    before = dict(vars(sahi.HuggingfaceDetectionModel))
    tell_sahi_of_sigmoids(sahi)
    assert dict(vars(sahi.HuggingfaceDetectionModel)) == before


@pytest.mark.parametrize(
    "order",
    ["import hf_detr, sahi.models.huggingface as sahi", "import sahi.models.huggingface as sahi, hf_detr"],
    ids=["hf_detr first", "sahi first"],
)
def test_the_order_of_the_imports_does_not_matter(order):
    pytest.importorskip("sahi")
    told = "print(sahi.HuggingfaceDetectionModel._uses_sigmoid_cls.fget.__module__)"
    done = subprocess.run([sys.executable, "-c", f"{order}; {told}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "hf_detr.registration"


@pytest.mark.parametrize("preset", ["tiny", "detr-resnet-50"])
def test_sahi_finds_the_scores_of_the_model(preset, tmp_path):
    sahi = pytest.importorskip("sahi.models.huggingface")
    model = tiny_model(preset, num_labels=2, id2label=NAMES, label2id={name: label for label, name in NAMES.items()})
    processor = HfDetrImageProcessor.for_config(model.config, size={"height": 96, "width": 96})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    detector = sahi.HuggingfaceDetectionModel(model_path=str(tmp_path), confidence_threshold=0.0, device="cpu")
    with torch.no_grad():
        output = model(**processor(images=picture, return_tensors="pt"))
        own = output.logits.softmax(-1) if preset == "detr-resnet-50" else output.logits.sigmoid()
        scores, _, _ = detector.get_valid_predictions(output.logits[0], output.pred_boxes[0])
    real = own[0].argmax(-1) < len(NAMES)  # SAHI drops queries that see no object
    torch.testing.assert_close(scores, own[0].amax(-1)[real])
    assert len(scores)
