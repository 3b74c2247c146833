"""LoRA adapters of PEFT: what is loaded beside the base model is exactly what was trained."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from hf_detr import HfDetrForObjectDetection
from hf_detr.data import DetectionCollator

LEARNED_NORMS = {"freeze_batch_norm": False}
DEFORMABLE = {
    "encoder": "deformable",
    "cross_attention": "deformable",
    "num_feature_levels": 2,
    "query_reference": "selected",
    "query_content": "token",
    "query_position": "sine",
    "box_refinement": "look_forward_twice",
    "classification": "focal",
}
FAMILIES = pytest.mark.parametrize(
    "fields", [LEARNED_NORMS, DEFORMABLE | LEARNED_NORMS, {}], ids=["dense", "deformable", "dense, frozen norms"]
)


def adapted(base: HfDetrForObjectDetection, **options: Any) -> PeftModel:
    targets = ["q_proj", "v_proj", "value_proj"]
    return get_peft_model(base, LoraConfig(r=2, target_modules=targets, **options))


def logits(model: torch.nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values=pixel_values).logits


def assert_reloads(model: PeftModel, base: Path, adapter: Path) -> None:
    pixel_values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = HfDetrForObjectDetection.from_pretrained(base)
    before = logits(plain, pixel_values)
    restored = PeftModel.from_pretrained(plain, adapter)
    torch.testing.assert_close(logits(restored, pixel_values), logits(model, pixel_values))
    assert not torch.allclose(before, logits(restored, pixel_values), atol=1e-3)


@FAMILIES
def test_an_adapter_trained_with_our_trainer_reloads(
    build_trainer: Callable, build_model: Callable, tmp_path: Path, fields: dict[str, Any]
):
    base = build_model(**fields)
    base.save_pretrained(tmp_path / "base")
    model = adapted(base, modules_to_save=["heads"])
    trainer = build_trainer({"max_steps": 3, "learning_rate": 1e-2}, model=model)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    assert_reloads(model, tmp_path / "base", tmp_path / "adapter")


@pytest.mark.parametrize("modules_to_save", [["heads"], ["heads", "body.layer4"]])
def test_an_adapter_trained_with_a_plain_trainer_reloads(
    build_model: Callable,
    image_processor: Any,
    train_data: Dataset,
    tmp_path: Path,
    modules_to_save: list[str],
):
    """Norms of a part that is saved with the adapter learn, with their statistics; all others stay as they are."""
    base = build_model(**LEARNED_NORMS)
    base.save_pretrained(tmp_path / "base")
    before = {name: value.clone() for name, value in base.named_buffers() if "running" in name}
    model = adapted(base, modules_to_save=modules_to_save)
    arguments = {"remove_unused_columns": False, "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments(str(tmp_path / "run"), max_steps=3, learning_rate=1e-2, save_strategy="no", **arguments)
    trainer = Trainer(model, args, DetectionCollator(image_processor), train_data, processing_class=image_processor)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    assert_reloads(model, tmp_path / "base", tmp_path / "adapter")
    after = model.merge_and_unload().state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if "body.layer4" in name and len(modules_to_save) == 2}


def test_frozen_class_heads_are_reported(build_trainer: Callable, build_model: Callable, caplog):
    trainer = build_trainer({"max_steps": 1}, model=adapted(build_model()))
    with caplog.at_level(logging.WARNING, logger="hf_detr"):
        trainer.train()
    assert "modules_to_save=['heads']" in caplog.text
    caplog.clear()
    trainer = build_trainer({"max_steps": 1}, model=adapted(build_model(), modules_to_save=["heads"]))
    with caplog.at_level(logging.WARNING, logger="hf_detr"):
        trainer.train()
    assert "modules_to_save" not in caplog.text
