import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_detr.data.drawing import class_colour, draw_detections, grid, side_by_side

NAMES = ["ball", "a class of a rather long name", "star"]
GREY = (128, 128, 128)


def blank(width=200, height=150):
    return Image.new("RGB", (width, height), GREY)


def painted(picture):
    return (np.asarray(picture) != np.asarray(blank(*picture.size))).any(-1)


def test_the_outline_is_the_box_in_the_colour_of_its_class():
    picture = draw_detections(blank(), [[50, 60, 150, 120]], [2], NAMES)
    colour = class_colour(2)
    for point in ((50, 110), (150, 90), (140, 60), (100, 120)):
        assert picture.getpixel(point) == colour
    assert picture.getpixel((100, 100)) == GREY


def test_the_given_image_is_not_drawn_on():
    image = blank()
    draw_detections(image, [[50, 60, 150, 120]], [2], NAMES)
    assert not painted(image).any()


def test_nothing_to_draw():
    for boxes in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        assert not painted(draw_detections(blank(), boxes, [], NAMES, scores=[])).any()


def test_tensors_arrays_and_lists_give_the_same_picture():
    boxes, labels, scores = [[50.0, 60.0, 150.0, 120.0], [5, 5, 60, 40]], [2, 0], [0.5, 0.75]
    as_lists = draw_detections(blank(), boxes, labels, NAMES, scores)
    tensors = [torch.tensor(boxes, requires_grad=True), torch.tensor(labels), torch.tensor(scores)]
    arrays = [np.array(boxes), np.array(labels), np.array(scores)]
    for given_boxes, given_labels, given_scores in (tensors, arrays):
        picture = draw_detections(blank(), given_boxes, given_labels, NAMES, given_scores)
        assert picture.tobytes() == as_lists.tobytes()


def test_scores_are_shown_and_the_best_is_drawn_last():
    boxes = [[50, 60, 150, 120]] * 2
    best_first = draw_detections(blank(), boxes, [2, 0], NAMES, [0.9, 0.1])
    best_last = draw_detections(blank(), boxes, [0, 2], NAMES, [0.1, 0.9])
    assert best_first.tobytes() == best_last.tobytes()
    assert best_first.getpixel((50, 110)) == class_colour(2)
    assert draw_detections(blank(), boxes[:1], [2], NAMES).tobytes() != best_first.tobytes()


@settings(max_examples=60)
@given(
    st.integers(40, 300),
    st.integers(30, 300),
    st.lists(st.floats(-50, 400), min_size=4, max_size=4),
    st.integers(0, 2),
)
def test_captions_stay_inside_and_any_box_is_drawn(width, height, box, label):
    """Drawn on a larger sheet, nothing is lost: the caption has the size that it has with room all around."""
    picture = draw_detections(blank(width, height), [box], [label], NAMES)
    assert picture.size == (width, height)
    solid = (np.asarray(picture) == class_colour(label)).all(-1)
    assert solid.sum() > 50  # the caption's plate is in the picture wherever the box is


def test_neighbouring_classes_have_different_colours():
    colours = np.array([class_colour(label) for label in range(12)])
    distances = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert distances[~np.eye(12, dtype=bool)].min() > 40


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], None, "1 boxes, 2 labels"),
        ([0], [0.5, 0.5], "1 boxes, 1 labels, 2 scores"),
        ([3], None, r"between 0 and 2, got \[3\]"),
        ([-1], None, r"got \[-1\]"),
    ],
)
def test_boxes_labels_and_scores_must_fit(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(blank(), [[1, 2, 30, 40]], labels, NAMES, scores)


def test_side_by_side_shows_both_under_their_titles():
    left, right = Image.new("RGB", (80, 60), "red"), Image.new("RGB", (160, 120), "blue")
    sheet = side_by_side(left, right, ("Prediction", "Ground truth"))
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert sheet.width > 160
    assert sheet.height > 60
    assert (pixels == (255, 0, 0)).all(-1).sum() == (pixels == (0, 0, 255)).all(-1).sum() == 80 * 60


def test_grid_has_a_cell_for_every_image():
    images = [Image.new("RGB", (40, 30), (index, 200, 0)) for index in range(5)]
    sheet = grid(images, columns=3)
    assert sheet.width < 40 * 4
    assert sheet.height < 30 * 3
    pixels = np.asarray(sheet).reshape(-1, 3)
    for index in range(5):
        assert (pixels == (index, 200, 0)).all(-1).sum() == 40 * 30
    assert grid(images[:2], columns=4).width < 40 * 3


@pytest.mark.parametrize(("count", "columns"), [(0, 2), (2, 0)])
def test_an_empty_grid_is_refused(count, columns):
    with pytest.raises(ValueError, match=f"got {count} and {columns}"):
        grid([blank()] * count, columns)
