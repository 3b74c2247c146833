"""The smallest model and data on which training means something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from hf_detr.data import category_names, make_synthetic_dataset
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments


@pytest.fixture(scope="session")
def train_data() -> Dataset:
    return make_synthetic_dataset(8, 64, max_objects=4)


@pytest.fixture(scope="session")
def validation_data() -> Dataset:
    """Five images, so that batches of two end with a short one; ids that float32 cannot hold."""
    return make_synthetic_dataset(5, (80, 64), max_objects=4, first_image_id=2**24 + 1)


@pytest.fixture
def build_model(train_data: Dataset) -> Callable[..., HfDetrForObjectDetection]:
    def build(**overrides: Any) -> HfDetrForObjectDetection:
        torch.manual_seed(0)
        small = {
            "backbone": "test_resnet",
            "frozen_stages": -1,
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "num_queries": 10,
            "id2label": dict(enumerate(category_names(train_data))),
        }
        return HfDetrForObjectDetection(HfDetrConfig(**{**small, **overrides}))

    return build


@pytest.fixture(scope="session")
def image_processor() -> HfDetrImageProcessor:
    return HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})


@pytest.fixture
def build_trainer(
    build_model: Callable[..., HfDetrForObjectDetection],
    image_processor: HfDetrImageProcessor,
    train_data: Dataset,
    validation_data: Dataset,
    tmp_path: Path,
) -> Callable[..., HfDetrTrainer]:
    """A trainer; keywords of the trainer, and as `arguments` those of its arguments."""

    def build(arguments: dict[str, Any] | None = None, **keywords: Any) -> HfDetrTrainer:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "logging_steps": 1,
            "warmup_steps": 0,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        model = keywords.pop("model", None) or build_model()
        keywords = {
            "train_dataset": train_data,
            "eval_dataset": validation_data,
            "processing_class": image_processor,
            **keywords,
        }
        return HfDetrTrainer(model, HfDetrTrainingArguments(**{**defaults, **(arguments or {})}), **keywords)

    return build
