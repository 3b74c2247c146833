"""The formats that boxes are written in: each can be read, by every kind of reader, in place of the stated one."""

import layout_writers as write
import numpy as np
import pytest
from coco_files import annotation, coco_content, write_coco
from hypothesis import given
from hypothesis import strategies as st
from test_mistaken_format import written_as

from hf_detr.data import DataError, ReadOptions, data_fingerprint, load_detection_data, load_streaming_data
from hf_detr.data.box_formats import BOX_FORMATS, to_xywh

numbers = st.floats(0, 1000, width=32)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@given(box=st.tuples(numbers, numbers, numbers, numbers), size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_every_format_is_read_back(box_format, box, size):
    written = written_as(np.array([box], dtype=np.float64), np.array([size], dtype=np.float64), box_format)[0]
    np.testing.assert_allclose(to_xywh(written, box_format, *size), box, rtol=1e-9, atol=1e-9 * max(*box, 1))


def test_arrays_are_read_as_single_boxes_are():
    boxes, sizes = np.random.default_rng(0).random((5, 4)), np.array([[40.0, 30.0]] * 5)
    for box_format in BOX_FORMATS:
        many = np.stack(to_xywh(boxes.T, box_format, *sizes.T), axis=1)
        np.testing.assert_array_equal(many, [to_xywh(box, box_format, 40.0, 30.0) for box in boxes])


def test_a_format_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"xyxy \(left, top, right, bottom\).*; got 'yolo'"):
        ReadOptions(box_format="yolo")


def splits_written_as(box_format: str) -> dict:
    """Return the splits of `layout_writers` with the numbers of each box in a format."""
    size = np.array([[write.WIDTH, write.HEIGHT]], dtype=np.float64)
    return {
        split: [
            (name, [(*written_as(np.array([box[:4]], float), size, box_format)[0].tolist(), box[4]) for box in boxes])
            for name, boxes in rows
        ]
        for split, rows in write.SPLITS.items()
    }


@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn"])
@pytest.mark.parametrize("layout", [write.coco_zero_based, write.image_folder, write.saved_to_disk])
def test_every_reader_takes_the_numbers_as_its_owner_says(tmp_path, monkeypatch, layout, box_format):
    layout(tmp_path / "right")
    monkeypatch.setattr(write, "SPLITS", splits_written_as(box_format))
    layout(tmp_path / "other")
    options = ReadOptions(box_format=box_format)
    right = load_detection_data(tmp_path / "right")
    assert data_fingerprint(load_detection_data(tmp_path / "other", options=options)) == data_fingerprint(right)
    stream = load_streaming_data(tmp_path / "other", options=options)
    assert [row["objects"] for row in stream["train"]] == [row["objects"] for row in right["train"]]


def test_corners_of_voc_may_be_sizes(tmp_path, monkeypatch):
    write.voc_devkit(tmp_path / "right")
    sizes = {  # the writer adds x to the width and y to the height
        split: [(name, [(x, y, w - x, h - y, label) for x, y, w, h, label in boxes]) for name, boxes in rows]
        for split, rows in write.SPLITS.items()
    }
    monkeypatch.setattr(write, "SPLITS", sizes)
    write.voc_devkit(tmp_path / "other")
    loaded = load_detection_data(tmp_path / "other", options=ReadOptions(box_format="xywh"))
    assert data_fingerprint(loaded) == data_fingerprint(load_detection_data(tmp_path / "right"))


def test_boxes_around_polygons_are_left_alone(tmp_path):
    write.yolo_roboflow(tmp_path)
    expected = data_fingerprint(load_detection_data(tmp_path))
    assert data_fingerprint(load_detection_data(tmp_path, options=ReadOptions(box_format="xyxy"))) == expected


def test_an_area_in_shares_becomes_pixels(tmp_path):
    boxes = [annotation(1, bbox=[0.1, 0.2, 0.5, 0.5], area=0.25), annotation(2, bbox=[0, 0, 0.5, 0.5], area=90)]
    for name in ("train", "val"):
        write_coco(tmp_path / f"{name}.json", tmp_path / name, coco_content(annotations=boxes))
    row = load_detection_data(tmp_path, options=ReadOptions(box_format="xywhn"))["train"][0]
    assert row["objects"]["area"] == [300, 90]


def test_a_stream_says_which_option_reads_its_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SPLITS", splits_written_as("xyxy"))
    write.saved_to_disk(tmp_path / "data")
    stream = iter(load_streaming_data(tmp_path / "data")["validation"])
    next(stream)
    with pytest.raises(DataError, match=r"row 2: .*image id 2.* --box-format xyxy reads them so"):
        next(stream)


def test_a_stream_is_clipped(tmp_path, monkeypatch):
    boxes = [(-10, 2, 30, 4, "cat"), (50, 20, 30, 30, "bee"), (70, 1, 5, 5, "ant")]
    monkeypatch.setitem(write.SPLITS, "train", [("a", boxes)])
    write.saved_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match="--clip-boxes would clip 2 boxes of 1 image and drop 1"):
        next(iter(load_streaming_data(tmp_path / "data")["train"]))
    row = next(iter(load_streaming_data(tmp_path / "data", options=ReadOptions(clip_boxes=True))["train"]))
    assert row["objects"]["bbox"] == [[0, 2, 20, 4], [50, 20, 14, 12]]
    assert row["objects"]["category"] == [2, 1]
