"""Queries matched one to many, which exist in training only (H-DETR)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import images, labels, overfit, tiny_config, tiny_model
from torch import Tensor

from hf_detr import HfDetrForObjectDetection
from hf_detr.modeling.losses import Criterion, SupervisedSet
from hf_detr.modeling.targets import Targets

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
# every way to start queries: at points, at boxes, with denoising, selected, selected with learned content
PRESETS = [
    "conditional-detr-resnet-50",
    "dn-detr-resnet-50",
    "deformable-detr-resnet-50",
    "dab-deformable-detr-resnet-50",
    "deformable-detr-resnet-50-two-stage",
    "dino-resnet-50-4scale",
]


def pair(preset: str, **fields: Any) -> tuple[HfDetrForObjectDetection, HfDetrForObjectDetection]:
    """A model without and one with queries matched one to many, of otherwise the same weights."""
    plain = tiny_model(preset, **NO_DROPOUT).train()
    hybrid = tiny_model(
        preset, **NO_DROPOUT, **{"num_one_to_many_queries": 7, "one_to_many_repeats": 3} | fields
    ).train()
    missing, unexpected = hybrid.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all("one_to_many" in name for name in missing)
    return plain, hybrid


def forward(model: HfDetrForObjectDetection, annotations: list[dict[str, Tensor]]) -> Any:
    torch.manual_seed(0)  # of the denoising noise
    return model(images(len(annotations)), labels=annotations)


@pytest.mark.parametrize("preset", PRESETS)
def test_they_never_influence_the_predictions(preset: str):
    plain, hybrid = pair(preset)
    expected, found = (forward(model, labels(2, 3)) for model in (plain, hybrid))
    for name in ("logits", "pred_boxes"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(found.auxiliary_outputs, expected.auxiliary_outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for name, value in expected.loss_dict.items():
        torch.testing.assert_close(found.loss_dict[name], value, rtol=1e-5, atol=1e-5, msg=name)
    more = {f"{term}_o2m{suffix}" for term in ("loss_ce", "loss_bbox", "loss_giou") for suffix in ("_0", "")}
    assert set(found.loss_dict) - set(expected.loss_dict) == more


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_of_them_is_left_at_inference(preset: str):
    plain, hybrid = (model.eval() for model in pair(preset))
    with torch.no_grad():
        expected, found = plain(images(2)), hybrid(images(2), labels=labels(1, 2))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
    assert not [name for name in found.loss_dict if "o2m" in name]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("counts", [(2, 3), (0, 0)])
def test_every_parameter_learns_also_without_objects(preset: str, counts: tuple[int, ...]):
    """A parameter without gradient would stop training on several processes."""
    _, model = pair(preset)
    output = forward(model, labels(*counts))
    output.loss.backward()
    assert output.loss.isfinite()
    frozen = {
        name for name, parameter in model.named_parameters() if parameter.grad is None and parameter.requires_grad
    }
    assert frozen == set()


def test_the_coefficient_weighs_their_losses():
    plain, hybrid = pair("dino-resnet-50-4scale", one_to_many_loss_coefficient=0.5)
    expected, found = (forward(model, labels(2, 3)) for model in (plain, hybrid))
    config, terms = hybrid.config, found.loss_dict
    coefficients = {
        "loss_ce": config.class_loss_coefficient,
        "loss_bbox": config.bbox_loss_coefficient,
        "loss_giou": config.giou_loss_coefficient,
    }
    more = sum(weight * terms[f"{name}_o2m{suffix}"] for name, weight in coefficients.items() for suffix in ("_0", ""))
    torch.testing.assert_close(found.loss, expected.loss + 0.5 * more, rtol=1e-5, atol=1e-5)


def test_each_object_is_found_by_several_queries_and_counts_once():
    """Seven queries answer two objects three times each; the loss is that of the repeated objects, per repetition."""
    _, model = pair("dino-resnet-50-4scale")
    annotations = labels(2)
    targets = model.prepare_targets(annotations, torch.float32)
    outputs = model.model(images(1), targets=targets)
    (found,) = (s for s in model.supervised_sets(outputs, targets, 2.0) if s.kind == "one_to_many")
    assert found.logits.shape[2] == 7
    assert found.matches.matched.all()
    chosen = found.matches.query_index[0, 0]
    assert len(set(chosen.tolist())) == len(chosen) == 6
    tripled = {name: torch.cat([annotations[0][name]] * 3) for name in ("class_labels", "boxes")}
    again = Targets.from_labels([tripled], torch.float32)
    criterion: Criterion = model.criterion
    matches = criterion.matcher(found.logits, found.boxes, again)
    spelled_out = SupervisedSet(found.suffixes, found.logits, found.boxes, again, matches, torch.tensor(6.0))
    for name, value in criterion.box_losses(spelled_out).items():
        torch.testing.assert_close(criterion.box_losses(found)[name], value)


@pytest.mark.parametrize("counts", [(2, 0, 1), (1, 2), (0, 2)])
def test_padding_is_never_an_object(counts: tuple[int, ...]):
    """Images of a batch have different numbers of objects; each is matched as if it were alone."""
    _, model = pair("dino-resnet-50-4scale", num_one_to_many_queries=7, one_to_many_repeats=3)
    annotations = labels(*counts)
    targets = model.prepare_targets(annotations, torch.float32)
    logits, boxes = torch.randn(2, len(counts), 7, model.config.num_labels), torch.rand(2, len(counts), 7, 4)
    found = model.criterion.matcher(logits, boxes, targets, repeats=3)
    assert torch.equal(found.matched, targets.repeat(3).valid.expand_as(found.matched))
    for image, annotation in enumerate(annotations):
        alone = Targets.from_labels([annotation], torch.float32).repeat(3)
        matches = model.criterion.matcher(logits[:, image, None], boxes[:, image, None], alone)
        slots = found.matched[0, image]
        assert torch.equal(found.query_index[:, image, slots], matches.query_index[:, 0])


def test_selected_ones_are_the_next_best_proposals():
    """A model with 17 queries starts where one with 10 and 7 does: its contents follow from the places."""
    seen = {}
    for own, more in ((10, 7), (17, 0)):
        model = tiny_model(
            "deformable-detr-resnet-50-two-stage", num_queries=own, num_one_to_many_queries=more
        ).train()
        model.model.queries.register_forward_hook(
            lambda module, arguments, queries, own=own: seen.update({own: queries})
        )
        selected = model.model(images(1), targets=model.prepare_targets(labels(1), torch.float32)).selected_indices
        assert selected.shape == (1, own)
    assert (seen[10].num_one_to_many, seen[17].num_one_to_many) == (7, 0)
    for name in ("content", "position", "reference_points"):
        torch.testing.assert_close(getattr(seen[10], name), getattr(seen[17], name), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "left"), [(32, False), (48, True)])
def test_small_images_have_fewer_of_them(size: int, left: bool):
    """On four levels a picture of 32 pixels has 22 tokens, as many as there are queries without them."""
    model = tiny_model("dino-resnet-50-4scale", num_queries=22, num_one_to_many_queries=9).train()
    output = model(images(2, size, size), labels=labels(12, 1))
    output.loss.backward()
    assert output.logits.shape[1] == 22
    assert ("loss_ce_o2m" in output.loss_dict) is left


def test_a_trained_model_loads_without_them(tmp_path: Path):
    _, hybrid = pair("dino-resnet-50-4scale")
    hybrid.save_pretrained(tmp_path)
    config = tiny_config("dino-resnet-50-4scale", **NO_DROPOUT)
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path, config=config).eval()
    again = HfDetrForObjectDetection.from_pretrained(tmp_path).eval()
    saved = hybrid.state_dict()
    assert all(
        torch.equal(saved[name], tensor) for model in (loaded, again) for name, tensor in model.state_dict().items()
    )
    with torch.no_grad():  # the last bits depend on where in memory the weights lie
        expected = hybrid.eval()(images(1))
        torch.testing.assert_close(loaded(images(1)).logits, expected.logits)
        torch.testing.assert_close(again(images(1)).logits, expected.logits)


def test_all_options_together_learn():
    torch.manual_seed(0)
    model = tiny_model(
        "dino-resnet-50-4scale",
        num_one_to_many_queries=20,
        classification="matchability",
        class_cost_position_power=0.5,
        **NO_DROPOUT,
    ).train()
    first, last = overfit(model)
    # of the boxes: the target of the class loss grows with their quality
    assert last["loss_bbox"] < 0.5 * first["loss_bbox"]
    assert last["loss_bbox_o2m"] < 0.9 * first["loss_bbox_o2m"]
