"""Detections without an image processor: against transformers' post-processing, in half precision, exported."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DeformableDetrImageProcessor, DetrImageProcessor
from transformers.utils import ModelOutput

from hf_detr.processing.post_processing import best_classes, corners_of, detect_objects

KEYS = ("scores", "labels", "boxes")


def predictions(batch_size=2, queries=12, classes=5, seed=0, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    """Logits and boxes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(batch_size, queries, 2, generator=generator) * 0.4 + 0.3
    sides = torch.rand(batch_size, queries, 2, generator=generator) * 0.4
    logits = torch.randn(batch_size, queries, classes, generator=generator) * 3
    return logits.to(dtype), torch.cat([centres, sides], -1).to(dtype)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_softmax_detections_equal_those_of_transformers(as_tensor):
    (logits, boxes), target_sizes = predictions(), [(480, 640), (33, 21)]
    sizes = torch.tensor(target_sizes) if as_tensor else target_sizes
    ours = detect_objects(logits, boxes, "softmax", threshold=0.3, target_sizes=sizes)
    outputs = ModelOutput(logits=logits, pred_boxes=boxes)
    theirs = DetrImageProcessor().post_process_object_detection(outputs, 0.3, target_sizes)
    for found, expected in zip(ours, theirs, strict=True):
        assert 0 < len(found["scores"]) < 12
        order = expected["scores"].argsort(descending=True)
        for key in KEYS:
            torch.testing.assert_close(found[key], expected[key][order])


@pytest.mark.parametrize("top_k", [1, 7, 100])
def test_sigmoid_detections_equal_those_of_transformers(top_k):
    (logits, boxes), target_sizes = predictions(queries=30), [(480, 640), (33, 21)]
    ours = detect_objects(logits, boxes, "sigmoid", threshold=0.2, target_sizes=target_sizes, top_k=top_k)
    outputs = ModelOutput(logits=logits, pred_boxes=boxes)
    theirs = DeformableDetrImageProcessor().post_process_object_detection(outputs, 0.2, target_sizes, top_k=top_k)
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found["scores"]) > 0
        for key in KEYS:
            torch.testing.assert_close(found[key], expected[key])


def test_the_two_classifiers_differ_where_they_should():
    # one query, sure of class 1 and fairly sure of class 2; for softmax, class 2 is "no object"
    logits, boxes = torch.tensor([[[-9.0, 4.0, 3.0]]]), torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])
    [softmax], [sigmoid] = (detect_objects(logits, boxes, kind) for kind in ("softmax", "sigmoid"))
    assert softmax["labels"].tolist() == [1]
    assert sigmoid["labels"].tolist() == [1, 2]
    assert sigmoid["boxes"].tolist() == [[0.25, 0.25, 0.75, 0.75]] * 2  # relative without target sizes


def test_how_many_detections():
    logits, boxes = predictions(queries=60, classes=5)
    softmax = detect_objects(logits, boxes, "softmax", threshold=0)
    sigmoid = detect_objects(logits, boxes, "sigmoid", threshold=0)
    fewer = detect_objects(logits, boxes, "softmax", threshold=0, top_k=3)
    assert [len(found["scores"]) for found in softmax + sigmoid + fewer] == [60, 60, 100, 100, 3, 3]
    torch.testing.assert_close(fewer[0]["scores"], softmax[0]["scores"][:3])
    assert (softmax[0]["scores"].diff() <= 0).all()


@pytest.mark.parametrize("classification", ["softmax", "sigmoid"])
def test_a_query_that_is_not_a_number_comes_last(classification):
    logits, boxes = predictions(batch_size=1, queries=4, classes=3)
    logits[0, 1] = torch.nan
    scores, _, queries = best_classes(logits, classification, 100)
    assert 1 not in queries[0, :3].tolist()
    assert scores[0, -1] == 0
    assert not scores.isnan().any()
    [found] = detect_objects(logits, boxes, classification, threshold=0.0)
    assert len(found["scores"]) == int((scores > 0).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classification", ["softmax", "sigmoid"])
def test_half_precision_predictions_are_processed_in_float32(dtype, classification):
    logits, boxes = predictions(dtype=dtype)
    arguments = {"threshold": 0.1, "target_sizes": torch.tensor([[480, 640], [4000, 3000]], dtype=torch.int32)}
    half = detect_objects(logits, boxes, classification, **arguments)
    single = detect_objects(logits.float(), boxes.float(), classification, **arguments)
    for found, expected in zip(half, single, strict=True):
        assert found["boxes"].dtype == found["scores"].dtype == torch.float32
        assert torch.equal(found["boxes"], expected["boxes"])


def test_boxes_are_clipped_to_the_image():
    logits, boxes = torch.tensor([[[9.0, 0.0]]]), torch.tensor([[[0.9, 0.1, 0.6, 0.4]]])
    [found] = detect_objects(logits, boxes, "softmax", target_sizes=[(100, 200)])
    torch.testing.assert_close(found["boxes"], torch.tensor([[120.0, 0.0, 200.0, 30.0]]))


@pytest.mark.parametrize("classification", ["softmax", "sigmoid"])
def test_the_part_without_a_threshold_can_be_exported(classification):
    class Detections(nn.Module):
        def forward(self, logits, pred_boxes):
            scores, labels, queries = best_classes(logits, classification, 7)
            return scores, labels, corners_of(pred_boxes, queries)

    example, other = predictions(seed=1), predictions(seed=2)
    exported = torch.export.export(Detections(), example).module()
    for found, expected in zip(exported(*other), Detections()(*other), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_sizes": [(1, 2)]}, r"each of 2 image\(s\)"),
        ({"target_sizes": torch.ones(3, 2)}, r"got shape \(3, 2\)"),
        ({"target_sizes": torch.ones(2)}, r"got shape \(2,\)"),
        ({"target_sizes": [(1, 2), (1, 2, 3)]}, "per image"),
        ({"target_sizes": [480, 640]}, "per image"),
        ({"top_k": 0}, "top_k"),
        ({"classification": "focal"}, "'softmax' or 'sigmoid', got 'focal'"),
    ],
)
def test_arguments_that_do_not_fit_the_predictions(changes, message):
    with pytest.raises(ValueError, match=message):
        detect_objects(*predictions(), **({"classification": "softmax"} | changes))


def test_predictions_that_do_not_fit_together():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 5, 4\)"):
        detect_objects(torch.zeros(2, 3, 4), torch.zeros(2, 5, 4), "softmax")
