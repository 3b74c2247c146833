"""Predictions of every token of the memory, which exist in training only."""

from typing import Any

import pytest
import torch
from tiny import images, labels, overfit, tiny_model

from hf_detr import HfDetrConfig, HfDetrForObjectDetection

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
PRESETS = ["deformable-detr-resnet-50", "deformable-detr-resnet-50-two-stage", "dino-resnet-50-4scale"]


def pair(preset: str, **fields: Any) -> tuple[HfDetrForObjectDetection, HfDetrForObjectDetection]:
    """A model without and one with dense supervision, of otherwise the same weights."""
    plain = tiny_model(preset, **NO_DROPOUT).train()
    dense = tiny_model(preset, **NO_DROPOUT, **{"dense_repeats": 3} | fields).train()
    missing, unexpected = dense.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing} == {"dense"}
    return plain, dense


def forward(model: HfDetrForObjectDetection, *counts: int) -> Any:
    torch.manual_seed(0)  # of the denoising noise
    return model(images(len(counts)), labels=labels(*counts))


@pytest.mark.parametrize("preset", PRESETS)
def test_it_adds_its_losses_and_changes_no_prediction(preset: str):
    plain, dense = pair(preset, dense_loss_coefficient=0.5)
    expected, found = forward(plain, 2, 3), forward(dense, 2, 3)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
    assert set(found.loss_dict) - set(expected.loss_dict) == {"loss_ce_dense", "loss_bbox_dense", "loss_giou_dense"}
    config = dense.config
    more = (
        config.class_loss_coefficient * found.loss_dict["loss_ce_dense"]
        + config.bbox_loss_coefficient * found.loss_dict["loss_bbox_dense"]
        + config.giou_loss_coefficient * found.loss_dict["loss_giou_dense"]
    )
    torch.testing.assert_close(found.loss, expected.loss + 0.5 * more)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_of_it_is_left_at_inference(preset: str):
    plain, dense = (model.eval() for model in pair(preset))
    with torch.no_grad():
        expected, found = forward(plain, 1, 2), forward(dense, 1, 2)
    assert torch.equal(found.logits, expected.logits)
    assert found.loss_dict.keys() == expected.loss_dict.keys()


@pytest.mark.parametrize("counts", [(2, 3), (0, 1), (0, 0)])
def test_every_parameter_learns_also_without_objects(counts: tuple[int, ...]):
    _, model = pair("dino-resnet-50-4scale")
    output = forward(model, *counts)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.model.dense.parameters())


def test_each_object_is_found_by_several_tokens_near_it():
    """The tokens' first boxes lie on their cells, so an object is matched to cells around its centre."""
    _, model = pair("dino-resnet-50-4scale")
    annotation = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.25, 0.75, 0.1, 0.1]])}
    targets = model.prepare_targets([annotation], torch.float32)
    outputs = model.model(images(1, 128, 128), targets=targets)
    (found,) = (s for s in model.supervised_sets(outputs, targets, 1.0) if s.suffixes == ["_dense"])
    assert found.matches.matched.all()
    tokens = found.matches.query_index.flatten()
    assert len(set(tokens.tolist())) == 3
    centres = found.boxes[0, 0, tokens, :2]
    assert (centres - annotation["boxes"][:, :2]).abs().max() < 0.15


def test_it_needs_tokens_that_know_their_place():
    with pytest.raises(ValueError, match="dense_repeats=3, encoder='dense'"):
        HfDetrConfig.from_preset("dab-detr-resnet-50", dense_repeats=3)


def test_it_learns():
    torch.manual_seed(0)
    model = tiny_model("dino-resnet-50-4scale", dense_repeats=4, query_content="token", **NO_DROPOUT).train()
    first, last = overfit(model)
    assert last["loss_bbox_dense"] < 0.6 * first["loss_bbox_dense"]
    assert last["loss_bbox"] < 0.6 * first["loss_bbox"]
