"""Boxes of another format than stated are recognised over many images, and never where they are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_detr.data.box_formats import BOX_FORMATS
from hf_detr.data.mistaken_format import mistaken_format


@st.composite
def boxes_in_images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Up to 40 proper boxes (x, y, width, height), each in an image of its own size."""
    sizes = draw(st.lists(st.tuples(st.integers(32, 999), st.integers(32, 999)), min_size=1, max_size=40))
    shares = [draw(st.tuples(*[st.floats(0.05, 0.95)] * 4)) for _ in sizes]
    sizes, shares = np.array(sizes, dtype=np.float64), np.array(shares)
    corner = shares[:, :2] * (sizes - 3)
    return np.concatenate((corner, 3 + shares[:, 2:] * (sizes - 3 - corner)), axis=1), sizes


def written_as(bbox: np.ndarray, sizes: np.ndarray, box_format: str) -> np.ndarray:
    """Return boxes (x, y, width, height) in pixels as a file in a format has them."""
    corner, extent = bbox[:, :2], bbox[:, 2:]
    written = {"xyxy": (corner, corner + extent), "cxcywh": (corner + extent / 2, extent), "xywh": (corner, extent)}
    numbers = np.concatenate(written[box_format.removesuffix("n")], axis=1)
    return numbers / np.tile(sizes, 2) if box_format.endswith("n") else numbers


@pytest.mark.parametrize("stated", BOX_FORMATS)
@settings(max_examples=40)
@given(drawn=boxes_in_images())
def test_boxes_in_the_stated_format_are_never_taken_for_another(stated: str, drawn: tuple[np.ndarray, np.ndarray]):
    bbox, sizes = drawn
    assert mistaken_format(written_as(bbox, sizes, stated), sizes, stated) is None


def test_a_few_slips_are_not_another_format():
    bbox = np.array([[40.0, 40, 20, 20]] * 30 + [[85.0, 40, 20, 20]] * 4)  # the last ones would fit as centres
    assert mistaken_format(bbox, np.full((34, 2), 100.0), "xywh") is None
