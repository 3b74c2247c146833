import io

import numpy as np
import pytest
from PIL import Image

from hf_detr.data import category_names, make_synthetic_dataset, undecoded
from hf_detr.data.synthetic import SHAPES


@pytest.fixture(scope="module")
def scenes():
    return make_synthetic_dataset(24, image_size=(160, 128), seed=3)


def raw(dataset):
    return [(row["image"]["bytes"], row["instance_mask"]["bytes"], row["objects"]) for row in undecoded(dataset)]


def test_rows_have_the_schema(scenes):
    row = scenes[0]
    assert category_names(scenes) == list(SHAPES)
    assert row["image"].size == row["instance_mask"].size == (160, 128) == (row["width"], row["height"])
    assert row["image"].mode == "RGB"
    assert row["image"].format == "PNG"
    assert scenes["image_id"] == list(range(24))


def test_boxes_and_areas_are_those_of_the_visible_pixels(scenes):
    for row in scenes:
        mask = np.asarray(row["instance_mask"])
        objects = row["objects"]
        assert set(np.unique(mask)) - {0} == set(range(1, len(objects["bbox"]) + 1))
        for index, (box, area) in enumerate(zip(objects["bbox"], objects["area"], strict=True), start=1):
            rows, columns = np.nonzero(mask == index)
            expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert box == expected
            assert area == len(rows)


def test_objects_stand_out_from_the_background():
    """What the mask marks is what is drawn: without its object, the picture is the background there."""
    dataset = make_synthetic_dataset(12, 128, seed=1, max_objects=1)
    for row in dataset:
        picture = np.asarray(row["image"], dtype=float)
        mask = np.asarray(row["instance_mask"]) > 0
        ring = np.pad(mask, 4)
        ring = (
            np.any([np.roll(ring, (dy, dx), (0, 1)) for dy in (-4, 0, 4) for dx in (-4, 0, 4)], 0)[4:-4, 4:-4] & ~mask
        )
        assert np.abs(picture[mask].mean(0) - picture[ring].mean(0)).max() > 10


def test_every_class_and_every_size_appears():
    dataset = make_synthetic_dataset(60, 256, seed=0)
    labels = [label for objects in dataset["objects"] for label in objects["category"]]
    sides = np.sqrt([area for objects in dataset["objects"] for area in objects["area"]])
    assert set(labels) == set(range(len(SHAPES)))
    shares = np.histogram(sides, [0, 32, 96, 256])[0] / len(sides)
    assert shares.min() > 0.1
    counts = [len(objects["id"]) for objects in dataset["objects"]]
    assert min(counts) >= 1
    assert max(counts) <= 8
    assert max(counts) > 4


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_images(scenes):
    again = make_synthetic_dataset(5, image_size=(160, 128), seed=3)
    assert raw(again) == raw(scenes)[:5]
    later = make_synthetic_dataset(3, image_size=(160, 128), seed=3, first_image_id=4)
    assert raw(later) == raw(scenes)[4:7]
    assert make_synthetic_dataset(5, (160, 128), seed=3)._fingerprint == again._fingerprint


def test_another_seed_gives_other_pictures(scenes):
    other = raw(make_synthetic_dataset(3, image_size=(160, 128), seed=4))
    assert not {image for image, _, _ in other} & {image for image, _, _ in raw(scenes)}


def test_a_subset_of_the_classes():
    dataset = make_synthetic_dataset(6, 64, categories=["star", "ball"])
    assert category_names(dataset) == ["star", "ball"]
    assert {label for objects in dataset["objects"] for label in objects["category"]} == {0, 1}


def test_many_objects_keep_their_numbers_in_the_mask():
    row = undecoded(make_synthetic_dataset(1, 512, seed=5, max_objects=800))[0]
    mask = np.asarray(Image.open(io.BytesIO(row["instance_mask"]["bytes"])))
    assert len(row["objects"]["id"]) > 255
    assert mask.max() == len(row["objects"]["id"])


@pytest.mark.parametrize("size", [32, (33, 100), (100, 33)])
def test_small_and_oblong_images_show_something(size):
    for row in make_synthetic_dataset(40, size, max_objects=2):
        assert len(row["objects"]["id"]) >= 1
        assert min(row["objects"]["area"]) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "num_images=0"),
        ({"max_objects": 0}, "max_objects=0"),
        ({"seed": -1}, "seed=-1"),
        ({"first_image_id": -1}, "first_image_id=-1"),
        ({"image_size": 31}, "31x31"),
        ({"image_size": (100, 8)}, "100x8"),
        ({"categories": ["star", "tree"]}, r"\['star', 'tree'\]"),
        ({"categories": []}, "among"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_synthetic_dataset(**{"num_images": 1, "image_size": 64} | arguments)
