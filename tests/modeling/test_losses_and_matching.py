"""Matching, losses, boxes and position embeddings: golden operators, properties, brute force and peers."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from golden.cases import EXCERPTS
from hf_detr import HfDetrConfig
from hf_detr.modeling.boxes import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalised_box_iou,
    inverse_sigmoid,
)
from hf_detr.modeling.class_losses import SIGMOID_LOSSES, BackgroundSum, background, fast_softplus, sigmoid_loss
from hf_detr.modeling.losses import TERMS, Criterion, Term, cross_entropy
from hf_detr.modeling.matching import HungarianMatcher
from hf_detr.modeling.position import SinePositionEmbedding
from hf_detr.modeling.supervision import MatchedGroup, PredictionGroup, Predictions
from hf_detr.modeling.targets import Matches, Targets
from shared import SHARED_FOLDER

SOFTMAX = HfDetrConfig(num_labels=5)
FOCAL = HfDetrConfig(num_labels=5, classification="focal", class_cost=2)
QUALITY_AWARE = ["varifocal", "matchability"]
SIGMOID = ["focal", *QUALITY_AWARE]


def sigmoid_config(classification: str, **fields: float) -> HfDetrConfig:
    return HfDetrConfig(num_labels=5, classification=classification, class_cost=2, **fields)


@pytest.fixture(scope="module")
def operators() -> dict[str, Tensor]:
    """Golden values of single operators, from the excerpt in the repository."""
    return load_file(EXCERPTS / "operators.safetensors")


def labels_of(*images: tuple[Tensor, Tensor]) -> list[dict[str, Tensor]]:
    return [{"class_labels": labels, "boxes": boxes} for labels, boxes in images]


def random_labels(counts: list[int], num_labels: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "class_labels": torch.randint(num_labels, (count,), generator=generator),
            "boxes": torch.rand(count, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2,
            "image_id": torch.tensor([100 + index]),
        }
        for index, count in enumerate(counts)
    ]


def random_predictions(layers: int, batch: int, queries: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(layers, batch, queries, classes, generator=generator, dtype=torch.float64)
    boxes = torch.rand(layers, batch, queries, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2
    return logits, boxes


# ---------------------------------------------------------------------------------------------------- golden values


def test_the_excerpt_is_what_the_complete_file_says(operators: dict[str, Tensor]):
    complete = SHARED_FOLDER / "golden" / "ops.safetensors"
    if not complete.is_file():
        pytest.skip("the complete golden operators are not beside the repository")
    expected = load_file(complete)
    assert {name: bool(torch.equal(value, expected[name])) for name, value in operators.items()} == dict.fromkeys(
        operators, True
    )


def test_generalised_iou_and_its_gradients(operators: dict[str, Tensor]):
    first = operators["giou.boxes1_cxcywh"].clone().requires_grad_()
    second = operators["giou.boxes2_cxcywh"].clone().requires_grad_()
    corners = box_cxcywh_to_xyxy(first)[:, None], box_cxcywh_to_xyxy(second)[None]
    giou = generalised_box_iou(*corners)
    iou, union = box_iou(*corners)
    giou.sum().backward()
    for ours, name in ((giou, "giou"), (iou, "iou"), (union, "union"), (first.grad, "grad1"), (second.grad, "grad2")):
        torch.testing.assert_close(ours, operators[f"giou.{name}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["softmax", "focal"])
@pytest.mark.parametrize("index", range(4))
def test_matching_equals_the_original(operators: dict[str, Tensor], kind: str, index: int):
    """The third and fourth case have as many and more objects than queries."""
    case = {name.rsplit(".", 1)[1]: v for name, v in operators.items() if name.startswith(f"match_{kind}.{index}.")}
    sizes = case["sizes"].tolist()
    labels = labels_of(*zip(case["labels"].split(sizes), case["target_boxes"].split(sizes), strict=True))
    targets = Targets.from_labels(labels, torch.float64)
    matcher = HungarianMatcher(SOFTMAX if kind == "softmax" else FOCAL)
    matches = matcher(case["logits"][None], case["boxes"][None], targets)
    images, objects = matches.matched[0].nonzero(as_tuple=True)
    queries = matches.query_index[0][matches.matched[0]]
    found = set(zip(images.tolist(), queries.tolist(), objects.tolist(), strict=True))
    assert found == set(map(tuple, case["indices"].mT.tolist()))


def predictions_for_classes(logits: Tensor, classes: Tensor, no_object: int | None) -> MatchedGroup:
    """A group whose matches are read off the class of each query: every real class is one object."""
    is_object = torch.ones_like(classes, dtype=torch.bool) if no_object is None else classes != no_object
    labels = [
        {"class_labels": c[o], "boxes": torch.full((int(o.sum()), 4), 0.5)}
        for c, o in zip(classes, is_object, strict=True)
    ]
    targets = Targets.from_labels(labels, torch.float64)
    index = torch.nn.utils.rnn.pad_sequence([o.nonzero()[:, 0] for o in is_object], batch_first=True)
    boxes = torch.full((*logits.shape[:2], 4), 0.5, dtype=torch.float64)
    return MatchedGroup(
        Predictions(logits[None], boxes[None]), targets, Matches(index[None], targets.valid[None]), torch.tensor(1.0)
    )


def test_cross_entropy_and_its_gradient(operators: dict[str, Tensor]):
    logits = operators["ce.logits"].clone().requires_grad_()
    predictions = predictions_for_classes(logits, operators["ce.target"].long(), no_object=logits.shape[-1] - 1)
    loss = cross_entropy(predictions, SOFTMAX)
    loss.sum().backward()
    torch.testing.assert_close(loss, operators["ce.loss"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits.grad, operators["ce.grad"], rtol=1e-9, atol=1e-9)


def test_focal_loss_and_its_gradient(operators: dict[str, Tensor]):
    logits, one_hot = operators["focal.logits"].clone().requires_grad_(), operators["focal.target"]
    num_classes = logits.shape[-1]
    classes = torch.where(one_hot.any(-1), one_hot.argmax(-1), num_classes)
    predictions = predictions_for_classes(logits, classes, no_object=num_classes)
    predictions.num_boxes = torch.tensor(4.0)
    loss = sigmoid_loss(predictions, FOCAL)
    loss.sum().backward()
    torch.testing.assert_close(loss, operators["focal.loss"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits.grad, operators["focal.grad"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "offset"), [("pos_detr_norm", 0.0), ("pos_deformable_norm", -0.5)])
def test_sine_position_embedding(operators: dict[str, Tensor], name: str, offset: float):
    real = ~operators["pos.mask"].bool()
    config = SimpleNamespace(d_model=16, position_temperature=10000, position_offset=offset)
    feature = torch.zeros(*real.shape, dtype=torch.float64)[:, None]
    position = SinePositionEmbedding(config)(feature, real).permute(0, 3, 1, 2)
    position = position.masked_fill(~real[:, None], 0.0) if offset else position
    torch.testing.assert_close(position, operators[name], rtol=1e-9, atol=1e-9)


def test_position_embedding_without_mask_is_that_of_a_full_mask():
    config = SimpleNamespace(d_model=16, position_temperature=20, position_offset=-0.5)
    feature = torch.zeros(2, 3, 5, 7)
    embedding = SinePositionEmbedding(config)
    torch.testing.assert_close(embedding(feature, None), embedding(feature, torch.ones(2, 5, 7, dtype=torch.bool)))


# ------------------------------------------------------------------------------------------------------------- boxes

unit = st.floats(0, 1, width=32)
boxes = st.tuples(unit, unit, unit, unit)


@given(st.lists(boxes, min_size=1, max_size=5))
def test_box_formats_round_trip(rows: list[tuple[float, ...]]):
    given_boxes = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(given_boxes)), given_boxes)
    torch.testing.assert_close(
        box_cxcywh_to_xyxy(given_boxes), torchvision.ops.box_convert(given_boxes, "cxcywh", "xyxy")
    )


@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4))
def test_overlaps_equal_torchvision_and_are_bounded(first: list, second: list):
    first_boxes = box_cxcywh_to_xyxy(torch.tensor(first, dtype=torch.float64))
    second_boxes = box_cxcywh_to_xyxy(torch.tensor(second, dtype=torch.float64))
    giou = generalised_box_iou(first_boxes[:, None], second_boxes[None])
    iou, _ = box_iou(first_boxes[:, None], second_boxes[None])
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()
    assert ((giou >= -1 - 1e-12) & (giou <= iou + 1e-12)).all()
    sizes1, sizes2 = (b[:, 2:] - b[:, :2] for b in (first_boxes, second_boxes))
    solid = (sizes1.prod(-1) > 1e-6)[:, None] & (sizes2.prod(-1) > 1e-6)[None]  # torchvision divides 0 by 0 elsewhere
    expected = torchvision.ops.generalized_box_iou(first_boxes, second_boxes)
    torch.testing.assert_close(giou[solid], expected[solid], rtol=1e-6, atol=1e-6)


@given(st.floats(0, 1))
def test_inverse_sigmoid_undoes_sigmoid_up_to_its_clamp(probability: float):
    value = torch.tensor(probability, dtype=torch.float64)
    restored = inverse_sigmoid(value, eps=1e-5).sigmoid()
    assert abs(float(restored) - probability) <= 1.1e-5


# ---------------------------------------------------------------------------------------------------------- matching


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 10_000), st.booleans())
def test_the_assignment_is_the_cheapest(queries: int, objects: int, seed: int, softmax: bool):
    """Against all assignments by brute force, also where there are more objects than queries."""
    torch.manual_seed(seed)
    config = SOFTMAX if softmax else FOCAL
    matcher = HungarianMatcher(config)
    logits, predicted = torch.randn(1, 1, queries, 6, dtype=torch.float64), torch.rand(1, 1, queries, 4).double()
    targets = Targets.from_labels(random_labels([objects], 5, seed), torch.float64)
    matches = matcher(logits, predicted, targets)
    costs = matcher.costs(logits, predicted, targets)[0, 0]
    matched = matches.matched[0, 0]
    chosen = matches.query_index[0, 0][matched]
    assert len(set(chosen.tolist())) == len(chosen) == min(queries, objects)
    total = float(costs[matched.nonzero()[:, 0], chosen].sum())
    size = min(queries, objects)
    best = min(
        sum(float(costs[o, q]) for q, o in zip(some_queries, some_objects, strict=True))
        for some_queries in itertools.permutations(range(queries), size)
        for some_objects in itertools.combinations(range(objects), size)
    )
    assert total == pytest.approx(best, abs=1e-9)


def test_layers_and_images_are_matched_independently():
    """One batch of layers and images gives what each gives alone."""
    matcher = HungarianMatcher(FOCAL)
    logits, predicted = random_predictions(3, 4, 20, 5)
    labels = random_labels([5, 0, 2, 7], 5)
    together = matcher(logits, predicted, Targets.from_labels(labels, torch.float64))
    for layer, image in itertools.product(range(3), range(4)):
        alone = Targets.from_labels(labels[image : image + 1], torch.float64)
        part = slice(layer, layer + 1), slice(image, image + 1)
        expected = matcher(logits[part], predicted[part], alone)
        count = alone.counts[0]
        assert torch.equal(together.query_index[layer, image, :count], expected.query_index[0, 0])
        assert together.matched[layer, image].sum() == count


def test_matching_runs_in_float32_for_half_precision_targets():
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.rand(1, 4, dtype=torch.bfloat16)}]
    assert Targets.from_labels(labels, torch.bfloat16).boxes.dtype == torch.float32
    assert Targets.from_labels(labels, torch.float64).boxes.dtype == torch.float64


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["logits", "boxes"])
def test_predictions_that_are_not_finite_are_reported_by_image(
    bad: float, field: str, caplog: pytest.LogCaptureFixture
):
    logits, predicted = random_predictions(2, 3, 10, 5)
    (logits if field == "logits" else predicted)[1, 2, 4] = bad
    targets = Targets.from_labels(random_labels([2, 3, 4], 5), torch.float64)
    with caplog.at_level(logging.WARNING):
        matches = HungarianMatcher(FOCAL)(logits, predicted, targets)
    assert matches.matched.sum() == 2 * 9
    assert 4 not in matches.query_index[1, 2].tolist(), "a query that is not finite is the last choice"
    assert "[102]" in caplog.text


# ------------------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("classification", ["softmax", *SIGMOID])
@pytest.mark.parametrize("counts", [[3, 5], [4, 0], [0, 0]])
def test_losses_are_finite_and_have_gradients(classification: str, counts: list[int]):
    config = sigmoid_config(classification)
    classes = 6 if config.classification == "softmax" else 5
    logits, predicted = random_predictions(2, 2, 12, classes)
    logits, predicted = logits.requires_grad_(), predicted.requires_grad_()
    targets = Targets.from_labels(random_labels(counts, 5), torch.float64)
    criterion = Criterion(config)
    num_boxes = torch.tensor(max(1.0, sum(counts)))
    total, terms, _ = criterion([PredictionGroup("", Predictions(logits, predicted), targets)], num_boxes)
    total.backward()
    assert total.isfinite()
    assert set(terms) == {
        f"{name}{suffix}"
        for name in ("loss_ce", "loss_bbox", "loss_giou", "cardinality_error")
        for suffix in ("_0", "")
    }
    assert logits.grad.isfinite().all()
    assert predicted.grad.isfinite().all()
    assert (predicted.grad != 0).any() == (sum(counts) > 0)


def test_padding_of_the_targets_changes_nothing():
    """Losses of one image are the same beside an image with many more objects."""
    logits, predicted = random_predictions(1, 2, 15, 5)
    labels = random_labels([2, 9], 5)
    criterion = Criterion(FOCAL)

    def loss(images: slice) -> Tensor:
        targets = Targets.from_labels(labels[images], torch.float64)
        chosen = Predictions(logits[:, images], predicted[:, images])
        return criterion([PredictionGroup("", chosen, targets)], torch.tensor(1.0)).loss

    torch.testing.assert_close(loss(slice(0, 2)), loss(slice(0, 1)) + loss(slice(1, 2)))


def test_labels_that_do_not_fit_name_the_image():
    labels = random_labels([2], 5)
    with pytest.raises(ValueError, match=r"image 100.*'boxes' of shape \(3, 4\)"):
        Targets.from_labels([labels[0] | {"boxes": torch.rand(3, 4)}], torch.float32)
    with pytest.raises(ValueError, match="image 100 have no 'boxes'"):
        Targets.from_labels([{"class_labels": torch.tensor([1]), "image_id": torch.tensor([100])}], torch.float32)


# ------------------------------------------------------------------------------------- losses that know the box's fit


def binary_cross_entropy(probability: float, target: float) -> float:
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


def half_fitting_predictions() -> MatchedGroup:
    """One image, two objects of classes 1 and 0, three queries, two classes.

    Query 2 has the box of the first object shifted by a third of its width: IoU 0.5. Query 0 has that of the second
    object, exactly. Query 1 has nothing.
    """
    objects = torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.7, 0.2, 0.1, 0.1]], dtype=torch.float64)
    targets = Targets.from_labels(labels_of((torch.tensor([1, 0]), objects)), torch.float64)
    boxes = torch.stack([objects[1], objects[0], objects[0] + torch.tensor([0.1, 0, 0, 0], dtype=torch.float64)])
    logits = torch.tensor([[0.8, -0.3], [-1.2, 0.1], [0.4, -0.6]], dtype=torch.float64)
    matches = Matches(torch.tensor([[[2, 0]]]), targets.valid[None])
    return MatchedGroup(Predictions(logits[None, None], boxes[None, None]), targets, matches, torch.tensor(2.0))


@pytest.mark.parametrize(
    ("classification", "of_object", "of_nothing"),
    [
        # (p, q) → loss of an object's own class; p → loss of every other logit; alpha is 0.3
        (
            "focal",
            lambda p, q: 0.3 * (1 - p) ** 2 * -math.log(p),
            lambda p: 0.7 * p**2 * -math.log(1 - p),
        ),
        (
            "varifocal",
            lambda p, q: q * binary_cross_entropy(p, q),
            lambda p: 0.7 * p**2 * -math.log(1 - p),
        ),
        (
            "matchability",
            lambda p, q: binary_cross_entropy(p, q**1.5),
            lambda p: p**1.5 * -math.log(1 - p),
        ),
    ],
)
def test_the_equations_by_hand(classification: str, of_object: Callable, of_nothing: Callable):
    predictions = half_fitting_predictions()
    probabilities = predictions.predictions.logits[0, 0].sigmoid().tolist()
    quality = {(2, 1): 0.5, (0, 0): 1.0}  # of (query, class)
    expected = sum(
        of_object(p, quality[query, label]) if (query, label) in quality else of_nothing(p)
        for query, row in enumerate(probabilities)
        for label, p in enumerate(row)
    )
    found = sigmoid_loss(predictions, sigmoid_config(classification, focal_alpha=0.3))
    assert found.tolist() == pytest.approx([expected / 2], rel=1e-9)


def test_a_matched_box_beside_its_object_is_background_to_varifocal_but_not_to_matchability():
    predictions = half_fitting_predictions()
    predictions.predictions.boxes[0, 0, 2] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    unmatched = dataclasses.replace(
        predictions, matches=Matches(torch.tensor([[[1, 0]]]), torch.tensor([[[0, 1]]]) > 0)
    )
    for classification, same in (("varifocal", True), ("matchability", False)):
        config = sigmoid_config(classification)
        assert bool(torch.isclose(sigmoid_loss(predictions, config), sigmoid_loss(unmatched, config))) is same


@pytest.mark.parametrize("classification", SIGMOID)
def test_gradients_of_the_sigmoid_losses_are_exact(classification: str):
    group, config = half_fitting_predictions(), sigmoid_config(classification)

    def loss(logits: Tensor) -> Tensor:
        return sigmoid_loss(
            dataclasses.replace(group, predictions=Predictions(logits, group.predictions.boxes)), config
        )

    assert torch.autograd.gradcheck(loss, (group.predictions.logits.clone().requires_grad_(),))


@pytest.mark.parametrize("classification", SIGMOID)
def test_class_losses_do_not_move_boxes(classification: str):
    """The quality is a target: a box must not get worse to fit its score."""
    group = half_fitting_predictions()
    group.predictions.boxes.requires_grad_()
    group.predictions.logits.requires_grad_()
    sigmoid_loss(group, sigmoid_config(classification)).sum().backward()
    assert group.predictions.boxes.grad is None


@pytest.mark.parametrize("classification", SIGMOID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_and_boxes_keep_losses_and_gradients_finite(classification: str, dtype: torch.dtype):
    """Half-precision logits reach 65504 before they are raised; boxes shrink to points."""
    labels = random_labels([2, 1], 5)
    logits = torch.tensor([65504.0, -65504.0, 0.0, 100.0, -100.0], dtype=dtype).repeat(1, 2, 4, 1).requires_grad_()
    boxes = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=dtype).repeat(1, 2, 4, 1).requires_grad_()
    targets = Targets.from_labels(labels, dtype)
    targets.boxes[0, 0] = 0.0
    criterion = Criterion(sigmoid_config(classification))
    total = criterion([PredictionGroup("", Predictions(logits, boxes), targets)], torch.tensor(3.0)).loss
    total.backward()
    assert total.dtype == dtype
    assert total.isfinite()
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()


@settings(max_examples=25)
@given(
    st.sampled_from(["softmax", *SIGMOID]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.permutations(range(5)),
    st.integers(0, 10_000),
)
def test_the_order_of_queries_does_not_matter(classification: str, counts: list[int], order: list[int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    classes = 5 + (classification == "softmax")
    logits = torch.randn(2, len(counts), 5, classes, generator=generator, dtype=torch.float64)
    predicted = torch.rand(2, len(counts), 5, 4, generator=generator, dtype=torch.float64)
    targets = Targets.from_labels(random_labels(counts, 5, seed), torch.float64)
    criterion = Criterion(sigmoid_config(classification))

    def loss(some_logits: Tensor, some_boxes: Tensor) -> Tensor:
        return criterion([PredictionGroup("", Predictions(some_logits, some_boxes), targets)], torch.tensor(2.0)).loss

    torch.testing.assert_close(loss(logits[:, :, order], predicted[:, :, order]), loss(logits, predicted))


@settings(max_examples=50)
@given(st.sampled_from(QUALITY_AWARE), st.floats(0.01, 0.99), st.floats(0.02, 1))
def test_the_best_score_is_the_target_and_grows_with_the_fit(classification: str, score: float, quality: float):
    """At the object's own class no score is better than the target, which is monotone in the IoU."""
    fit = torch.tensor([quality, 1.0], dtype=torch.float64).view(1, 1, 2)  # a perfect box: nothing is stretched

    def terms(probability: Tensor) -> tuple[Tensor, Tensor]:
        target, weight = SIGMOID_LOSSES[classification].at_objects(probability, lambda: fit, 0.25)
        return target, weight * torch.nn.functional.binary_cross_entropy(probability, target, reduction="none")

    at_score = torch.full_like(fit, score)
    target, loss = terms(at_score)
    best = target.clamp(1e-9, 1 - 1e-9)
    entropy = terms(best)[1]
    assert target[0, 0, 0] <= target[0, 0, 1]
    assert (loss >= entropy - 1e-9).all()


@pytest.mark.parametrize("cached", [1, 70, 2**17])
@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_the_background_is_that_of_its_equation(gamma: float, cached: int, monkeypatch: pytest.MonkeyPatch):
    """However many images it takes at a time, with and without queries that do not count."""
    monkeypatch.setattr("hf_detr.modeling.class_losses._CACHED_LOGITS", cached)
    logits = torch.linspace(-8, 8, 150, dtype=torch.float64).view(5, 10, 3).requires_grad_()
    for supervised in (None, torch.rand(5, 10, generator=torch.Generator().manual_seed(0)) > 0.3):
        counted = torch.ones(5, 10) if supervised is None else supervised
        expected = (background(logits, gamma) * counted[:, :, None]).sum((1, 2))
        torch.testing.assert_close(BackgroundSum.apply(logits, gamma, supervised), expected, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(BackgroundSum.apply, (logits, gamma, supervised))


def test_the_fast_softplus_is_one():
    logits = torch.tensor([-math.inf, -300.0, -90, -20, -8, -1, 0, 1, 8, 20, 90, 300, math.inf, math.nan])
    expected = torch.nn.functional.softplus(logits)
    torch.testing.assert_close(fast_softplus(logits), expected, rtol=1e-6, atol=1e-7, equal_nan=True)


# ------------------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("counts", [(2, 0, 1), (1, 2), (0, 2)])
def test_objects_are_matched_as_if_their_image_were_alone_and_padding_never(counts: tuple[int, ...]):
    matcher = HungarianMatcher(FOCAL)
    logits, predicted = random_predictions(2, len(counts), 7, 5)
    rows = random_labels(list(counts), 5)
    targets = Targets.from_labels(rows, torch.float64)
    found = matcher(logits, predicted, targets)
    assert torch.equal(found.matched, targets.valid.expand_as(found.matched))
    for image, row in enumerate(rows):
        alone = Targets.from_labels([row], torch.float64)
        matches = matcher(logits[:, image, None], predicted[:, image, None], alone)
        slots = found.matched[0, image]
        assert torch.equal(found.query_index[:, image, slots], matches.query_index[:, 0])
        for chosen in matches.query_index[:, 0]:
            assert len(set(chosen.tolist())) == len(chosen)


def test_objects_that_stand_in_several_copies_count_once():
    """The terms are divided by as many objects more."""
    criterion, rows = Criterion(FOCAL), random_labels([2, 1], 5)
    predictions = Predictions(*random_predictions(2, 2, 9, 5))
    tripled = Targets.from_labels(
        [{name: torch.cat([row[name]] * 3) for name in ("class_labels", "boxes")} for row in rows], torch.float64
    )
    found = criterion([PredictionGroup("more", predictions, tripled, copies=3)], 3.0)
    spelled_out = criterion([PredictionGroup("more", predictions, tripled)], 9.0)
    for name in ("loss_ce_more", "loss_bbox_more_0", "loss_giou_more"):
        torch.testing.assert_close(found.loss_dict[name], spelled_out.loss_dict[name])


def test_groups_are_named_weighted_and_summed():
    """The sum is that of the coefficients times the terms, each group by its weight; matches are the first group's."""
    config = sigmoid_config("focal", class_loss_coefficient=2, bbox_loss_coefficient=5, giou_loss_coefficient=3)
    targets = Targets.from_labels(random_labels([2, 1], 5), torch.float64)
    given = Matches(torch.tensor([[[4, 2], [7, 0]]]), targets.valid[None])
    any_object = dataclasses.replace(targets, class_labels=torch.zeros_like(targets.class_labels))
    groups = [
        PredictionGroup("", Predictions(*random_predictions(3, 2, 9, 5)), targets),
        PredictionGroup("dn", Predictions(*random_predictions(2, 2, 8, 5)), targets, given, weight=0.25),
        PredictionGroup(
            "enc",
            Predictions(*random_predictions(1, 2, 6, 5)),
            any_object,
        ),
    ]
    loss, terms, matches = Criterion(config)(groups, 3.0)
    assert matches.query_index.shape == (3, 2, 2)
    suffixes = {"": 1, "_0": 1, "_1": 1, "_dn": 0.25, "_dn_0": 0.25, "_enc": 1}
    coefficients = {"loss_ce": 2, "loss_bbox": 5, "loss_giou": 3}
    assert set(terms) == {name + suffix for name in coefficients for suffix in suffixes} | {
        f"cardinality_error{suffix}" for suffix in ("", "_0", "_1", "_enc")
    }
    expected = sum(c * weight * terms[name + s] for name, c in coefficients.items() for s, weight in suffixes.items())
    torch.testing.assert_close(loss, expected)


def test_the_criterion_is_a_table(monkeypatch: pytest.MonkeyPatch):
    """A further term is one function and one row, and is asked only of groups that have what it needs."""
    row = Term(
        lambda group, config: group.predictions.boxes[..., 2:].mean((1, 2, 3)),
        "eos_coefficient",
        lambda group: not group.name,
    )
    monkeypatch.setitem(TERMS, "loss_size", row)
    targets = Targets.from_labels(random_labels([2, 1], 5), torch.float64)
    predictions = Predictions(*random_predictions(1, 2, 9, 5))
    groups = [PredictionGroup("", predictions, targets), PredictionGroup("enc", predictions, targets)]
    with_term, terms, _ = Criterion(FOCAL)(groups, 3.0)
    assert [name for name in terms if "size" in name] == ["loss_size"]
    monkeypatch.delitem(TERMS, "loss_size")
    without = Criterion(FOCAL)(groups, 3.0).loss
    torch.testing.assert_close(with_term, without + FOCAL.eos_coefficient * predictions.boxes[..., 2:].mean())
