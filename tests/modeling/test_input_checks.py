"""Images and labels that a model cannot use: each is refused in one line that names what was expected."""

import math
from typing import Any

import pytest
import torch
from tiny import images, labels, tiny_model

from hf_detr import HfDetrForObjectDetection


@pytest.fixture(scope="module")
def model() -> HfDetrForObjectDetection:
    return tiny_model("detr-resnet-50")


def refusal(model: HfDetrForObjectDetection, pixel_values: Any, annotations: Any) -> str:
    """The message of the error, which has one line."""
    with pytest.raises(ValueError) as refused:
        model(pixel_values, labels=annotations)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ([320.0, 240.0, 50.0, 40.0], "[320, 240, 50, 40]"),
        ([0.5, 0.5, 0.2, 1.01], "[0.5, 0.5, 0.2, 1.01]"),
        ([-0.1, 0.5, 0.2, 0.2], "[-0.1, 0.5, 0.2, 0.2]"),
        ([0.5, 0.5, -0.2, 0.2], "[0.5, 0.5, -0.2, 0.2]"),
        ([0.5, math.nan, 0.2, 0.2], "[0.5, nan, 0.2, 0.2]"),
        ([0.5, 0.5, math.inf, 0.2], "[0.5, 0.5, inf, 0.2]"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_box_that_is_not_normalised_names_image_and_object(model, box: list, written: str, dtype: torch.dtype):
    annotations = labels(3, 2)
    annotations[1]["boxes"][1] = torch.tensor(box)
    for annotation in annotations:
        annotation["boxes"] = annotation["boxes"].to(dtype)
    message = refusal(model, images(2), annotations)
    assert message.startswith(f"Image 101 has at index 1 of its 'boxes' the box {written}; normalised (cx, cy, w, h)")


def test_boxes_at_the_edges_of_the_image_are_accepted(model):
    edges = [[0.5, 0.5, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0.5, 0.5, 1.0005, 1], [-0.0005, 0.5, 0.1, 0.1]]
    annotations = [{"class_labels": torch.zeros(5, dtype=torch.int64), "boxes": torch.tensor(edges)}]
    assert model(images(1), labels=annotations).loss.isfinite()


def test_boxes_of_half_precision_and_images_without_objects_are_accepted(model):
    annotations = labels(3, 0)
    for annotation in annotations:
        annotation["boxes"] = annotation["boxes"].bfloat16()
    assert model(images(2), labels=annotations).loss.isfinite()
    assert model(images(2), labels=labels(0, 0)).loss.isfinite()


def test_pixels_as_integers_are_refused_as_boxes(model):
    annotations = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[32, 24, 50, 40]])}]
    assert "Image 0 has at index 0" in refusal(model, images(1), annotations)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_names_the_image(model, wrong: int):
    annotations = labels(3, 2)
    annotations[1]["class_labels"][1] = wrong
    assert refusal(model, images(2), annotations).startswith(f"Image 101 has the class label {wrong}, but the model")


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (labels(1)[0], "'labels' are of type dict; a list was expected"),
        (torch.zeros(2, 4), "'labels' are of type Tensor; a list was expected"),
        (labels(1, 1, 1), "'labels' describe 3 images, but 'pixel_values' hold 2 images."),
        ([], "'labels' describe 0 images, but 'pixel_values' hold 2 images."),
        ([torch.zeros(1, 4), torch.zeros(1, 4)], "The labels of image 0 are of type Tensor; a dict"),
        (
            [{"class_labels": [1], "boxes": torch.zeros(1, 4)}] * 2,
            "'class_labels' of type list; a tensor was expected",
        ),
        (
            [{"class_labels": torch.tensor(1), "boxes": torch.zeros(1, 4)}] * 2,
            "'class_labels' of shape (); one axis was expected",
        ),
    ],
)
def test_labels_of_a_wrong_form_are_refused(model, annotations: Any, message: str):
    assert message in refusal(model, images(2), annotations)


@pytest.mark.parametrize(
    ("pixel_values", "found"),
    [
        (torch.zeros(3, 32, 32), "of shape (3, 32, 32)"),
        (torch.zeros(1, 4, 32, 32), "of shape (1, 4, 32, 32)"),
        (torch.zeros(1, 32, 32, 3), "of shape (1, 32, 32, 3)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "of type torch.uint8"),
        ([torch.zeros(3, 32, 32)], "of type list"),
    ],
)
@pytest.mark.parametrize("annotations", [None, labels(1)])
def test_images_of_a_wrong_form_are_refused(model, pixel_values: Any, found: str, annotations: Any):
    message = refusal(model, pixel_values, annotations)
    assert f"'pixel_values' are {found};" in message
    assert "(B, C, H, W) with C=3 channels" in message
