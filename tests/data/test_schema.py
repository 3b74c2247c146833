import numpy as np
import pytest
from datasets import DatasetDict, Image
from hypothesis import given
from hypothesis import strategies as st

from hf_detr.data import DataError, category_names, data_fingerprint, detection_features, make_synthetic_dataset
from hf_detr.data.schema import SourceImage, SourceObject, SourceSplit, check_record, dataset_from_split

WIDTH, HEIGHT = 64, 48


def record(*boxes, **changes):
    objects = [SourceObject(id=index, bbox=box, category="cat") for index, box in enumerate(boxes)]
    return SourceImage(
        **{"image": "a.png", "image_id": 1, "width": WIDTH, "height": HEIGHT, "objects": objects} | changes
    )


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.floats(-5, 70, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=4))
def test_what_is_let_through_is_solid_and_inside_the_image(boxes):
    try:
        row, empty = check_record(record(*boxes), {"cat": 0}, "file")
    except DataError as error:
        assert "file, image id 1, annotation id" in str(error)  # noqa: PT017, whether it raises depends on the boxes
        return
    kept = row["objects"]["bbox"]
    assert len(kept) + empty == len(boxes)
    for x, y, width, height in kept:
        assert width > 0
        assert height > 0
        assert x >= 0
        assert y >= 0
        assert x + width <= WIDTH + 1e-4
        assert y + height <= HEIGHT + 1e-4


inside = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)).flatmap(
    lambda corner: st.tuples(
        st.just(corner[0]),
        st.just(corner[1]),
        st.integers(1, WIDTH - corner[0]),
        st.integers(1, HEIGHT - corner[1]),
    )
)


@given(st.lists(inside, max_size=4))
def test_boxes_inside_the_image_are_unchanged(boxes):
    row, empty = check_record(record(*boxes), {"cat": 0}, "file")
    assert row["objects"]["bbox"] == [list(box) for box in boxes]
    assert empty == 0


@given(st.lists(inside, min_size=1, max_size=4))
def test_corners_are_accepted_as_boxes_or_recognised(boxes):
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    try:
        check_record(record(*corners), {"cat": 0}, "file")
    except DataError as error:
        assert "looks like xyxy" in str(error)  # noqa: PT017, whether it raises depends on the boxes


def test_numpy_numbers_are_numbers():
    row, _ = check_record(record(np.array([1, 2, 3, 4])), {"cat": 0}, "file")
    assert row["objects"]["bbox"] == [[1, 2, 3, 4]]


def test_a_masked_object_cannot_be_left_out():
    with pytest.raises(DataError, match="instance mask has a box of zero area"):
        check_record(record((1, 1, 0, 4), instance_mask={"bytes": b"", "path": None}), {"cat": 0}, "file")


def test_image_ids_are_integers():
    with pytest.raises(DataError, match="'image_id': expected an integer, got 'one'"):
        dataset_from_split(SourceSplit([record(image_id="one")], {"cat": "cat"}, "file"))


def test_instance_masks_are_a_feature_only_when_asked_for():
    assert "instance_mask" not in detection_features(["cat"])
    assert detection_features(["cat"], instance_masks=True)["instance_mask"] == Image()


def test_category_names_are_in_the_order_of_the_labels():
    dataset = dataset_from_split(SourceSplit([record((1, 1, 2, 2))], {"cat": "Cat", "a": "Ant"}, "file"))
    assert category_names(dataset) == ["Cat", "Ant"]


def test_fingerprint_depends_on_boxes_labels_ids_and_names_only():
    def build(names=("cat",), image="a.png", **changes):
        rows = [record((1, 1, 2, 2), **({"image": image} | changes))]
        return data_fingerprint(dataset_from_split(SourceSplit(rows, {"cat": names[0]}, "file")))

    assert build() == build(image="b.png")
    assert len(build()) == 12
    changed = {build(names=("dog",)), build(image_id=2), build(width=65), build(objects=())}
    assert len(changed | {build()}) == 5


def test_fingerprint_of_splits_differs_from_that_of_their_exchange():
    first, second = make_synthetic_dataset(1, 32), make_synthetic_dataset(2, 32)
    one = data_fingerprint(DatasetDict(train=first, validation=second))
    other = data_fingerprint(DatasetDict(train=second, validation=first))
    assert one != other
