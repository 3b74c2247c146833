import math

import numpy as np
import pytest
from datasets import DatasetDict, Image, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from hf_detr.data import (
    DataError,
    ReadOptions,
    category_ids,
    category_names,
    data_fingerprint,
    detection_features,
    make_synthetic_dataset,
)
from hf_detr.data.box_checks import Changes
from hf_detr.data.record_checks import check_record
from hf_detr.data.schema import SourceImage, SourceObject, SourceSplit
from hf_detr.data.split_checks import dataset_from_split

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
        row, changes = check_record(record(*boxes), {"cat": 0}, "file")
    except DataError as error:
        assert "file, image id 1, annotation id" in str(error)  # noqa: PT017, whether it raises depends on the boxes
        return
    kept = row["objects"]["bbox"]
    assert len(kept) + changes.empty == len(boxes)
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
    row, changes = check_record(record(*boxes), {"cat": 0}, "file")
    assert row["objects"]["bbox"] == [list(box) for box in boxes]
    assert changes == Changes()


@given(st.lists(inside, min_size=1, max_size=4))
def test_corners_are_accepted_as_boxes_or_recognised(boxes):
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    try:
        dataset_from_split(SourceSplit([record(*corners)], {"cat": "cat"}, "file"))
    except DataError as error:
        assert "--box-format xyxy reads them so" in str(error)  # noqa: PT017, whether it raises depends on the boxes


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=4))
def test_clipping_leaves_what_is_inside_and_counts_the_rest(boxes):
    options = ReadOptions(clip_boxes=True)
    try:
        row, changes = check_record(record(*boxes), {"cat": 0}, "file", options)
    except DataError as error:
        assert "inside the image" not in str(error)  # noqa: PT017, whether it raises depends on the boxes
        return
    kept = dict(zip(row["objects"]["id"], row["objects"]["bbox"], strict=True))
    assert len(kept) + changes.empty + changes.dropped == len(boxes)
    assert changes.images == (changes.clipped + changes.dropped > 0)
    for number, (x, y, width, height) in enumerate(boxes):
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, WIDTH), min(y + height, HEIGHT)
        assert (number in kept) == (right > left and bottom > top)
        if number in kept:
            assert kept[number] == pytest.approx([left, top, right - left, bottom - top], abs=1e-4)
            again, unchanged = check_record(record(kept[number]), {"cat": 0}, "file", options)
            assert unchanged == Changes()
            assert again["objects"]["bbox"][0] == pytest.approx(kept[number])


def test_an_area_is_clipped_with_its_box():
    objects = [SourceObject(1, (-10, 0, 20, 10), "cat", area=100), SourceObject(2, (-1, 0, 20, 10), "cat", area=100)]
    row, changes = check_record(record(objects=objects), {"cat": 0}, "file", ReadOptions(clip_boxes=True))
    assert row["objects"]["area"] == [50, 100]  # a pixel over the edge is rounding, and no reason to change anything
    assert (changes.clipped, changes.dropped, changes.images) == (1, 0, 1)


def test_a_masked_object_cannot_be_clipped_away():
    masked = record((-9, 1, 4, 4), instance_mask={"bytes": b"", "path": None})
    with pytest.raises(DataError, match="instance mask has a box of zero area"):
        check_record(masked, {"cat": 0}, "file", ReadOptions(clip_boxes=True))


def test_one_error_counts_the_unusable_images_and_names_the_first():
    broken = [record((1, 1, 2, 2), image_id=1), *(record((1, 1, math.nan, 2), image_id=i) for i in range(2, 8))]
    with pytest.raises(DataError) as caught:
        dataset_from_split(SourceSplit(broken, {"cat": "cat"}, "file"))
    message = str(caught.value)
    assert message.startswith(
        "6 images cannot be used: file, image id 2, annotation id 0, field 'bbox': expected finite"
    )
    assert message.endswith("and 3 more, which `hf-detr doctor` lists; --skip-unusable leaves these images out")
    assert message.count("expected finite") == 3
    skipped = SourceSplit(broken, {"cat": "cat"}, "file", options=ReadOptions(skip_unusable=True))
    with pytest.warns(UserWarning, match="file: left out 6 images that cannot be used"):
        assert dataset_from_split(skipped)["image_id"] == [1]


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


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ({3: "Cat", 90: "Ant"}, {"Cat": 3, "Ant": 90}),
        ({"c-1": "Cat", "a-2": "Ant"}, {"Cat": "c-1", "Ant": "a-2"}),
        ({5: "5", 7: "7"}, {"5": 5, "7": 7}),
        ({0: "Cat", 1: "Ant"}, None),  # the labels themselves
        ({"Cat": "Cat", "Ant": "Ant"}, None),  # files that know their classes by name
    ],
)
def test_category_ids_of_the_files_stay_with_the_data_set(names, ids, tmp_path):
    image = record((1, 1, 2, 2))
    objects = [SourceObject(1, (1, 1, 2, 2), next(iter(names)))]
    split = SourceSplit([SourceImage(image.image, 1, WIDTH, HEIGHT, objects)], names, "file")
    dataset = dataset_from_split(split)
    assert category_ids(dataset) == ids
    dataset.remove_columns("image").select([0]).save_to_disk(tmp_path)
    assert category_ids(load_from_disk(tmp_path)) == ids


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
