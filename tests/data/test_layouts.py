"""Every layout, with real files: the same data give the same rows, whatever they are written as."""

import warnings

import layout_writers as write
import pytest
from layout_writers import HEIGHT, LAYOUTS, NAMES, SPLITS, WIDTH

from hf_detr.data import DataError, category_names, data_fingerprint, load_detection_data, load_streaming_data

every_layout = pytest.mark.parametrize("write_layout", LAYOUTS, ids=lambda function: function.__name__)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def rows(dataset):
    """What a row holds besides the picture, the object's ids left out: each layout has its own."""
    return [
        (row["image_id"], row["width"], row["height"], {k: v for k, v in row["objects"].items() if k != "id"})
        for row in dataset.remove_columns("image")
    ]


def expected_rows(split):
    return [
        (
            number,
            WIDTH,
            HEIGHT,
            {
                "bbox": [list(box[:4]) for box in boxes],
                "category": [NAMES.index(box[4]) for box in boxes],
                "area": [box[2] * box[3] for box in boxes],
                "iscrowd": [0] * len(boxes),
            },
        )
        for number, (_, boxes) in enumerate(SPLITS[split], start=1)
    ]


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fingerprint")
    write.roboflow(folder)
    return data_fingerprint(load_detection_data(folder))


@pytest.mark.filterwarnings("error")
@every_layout
def test_every_layout_gives_the_same_rows(tmp_path, write_layout, fingerprint):
    write_layout(tmp_path / "data")
    splits = load_detection_data(str(tmp_path / "data"))
    assert list(splits) == ["train", "validation"]
    for split, dataset in splits.items():
        assert category_names(dataset) == NAMES
        assert rows(dataset) == expected_rows(split)
        assert dataset[0]["image"].size == (WIDTH, HEIGHT)
        assert dataset[0]["image"].getpixel((0, 0))[0] == ord(SPLITS[split][0][0])
    assert data_fingerprint(splits) == fingerprint


@pytest.mark.parametrize(
    "write_layout", [f for f in LAYOUTS if f is not write.parquet_strings], ids=lambda function: function.__name__
)
def test_every_layout_can_be_streamed(tmp_path, write_layout):
    write_layout(tmp_path / "data")
    streams = load_streaming_data(tmp_path / "data")
    assert list(streams) == ["train", "validation"]
    for split, stream in streams.items():
        assert rows(stream) == expected_rows(split)
        assert set(next(iter(stream))["image"]) == {"bytes", "path"}


def test_a_stream_of_unnamed_categories_is_refused(tmp_path):
    write.parquet_strings(tmp_path / "data")
    with pytest.raises(DataError, match="ClassLabel, since a stream cannot be searched"):
        load_streaming_data(tmp_path / "data")


def only_training_data(folder, test=False):
    """Coco files of ten images to train on, two of them with the rarer class, and perhaps a test split."""
    boxes = [[(4, 8, 16, 8, "bee" if index in (3, 7) else "ant")] for index in range(10)]
    write.coco(folder / "train.json", folder / "train", [(f"{i}", found) for i, found in enumerate(boxes)])
    if test:
        write.coco(folder / "test.json", folder / "test", SPLITS["validation"])


def test_without_a_validation_split_one_is_split_off_and_said(tmp_path):
    only_training_data(tmp_path)
    with pytest.warns(UserWarning, match=r"no validation split found; .*8 images .* 2 for validation \(seed 5\)"):
        splits = load_detection_data(tmp_path, seed=5)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 8, "validation": 2}
    assert sum(1 in objects["category"] for objects in splits["validation"]["objects"]) == 1
    with pytest.warns(UserWarning, match="no validation"):
        assert data_fingerprint(load_detection_data(tmp_path, seed=5)) == data_fingerprint(splits)


def test_a_table_is_split_too_and_its_pictures_stay_with_their_rows(tmp_path):
    rows = write.table(tmp_path, "train")
    rows.to_parquet(tmp_path / "data.parquet")
    with pytest.warns(UserWarning, match="no validation"):
        splits = load_detection_data(tmp_path)
    shown = {row["image_id"]: row["image"].getpixel((0, 0))[0] for half in splits.values() for row in half}
    assert shown == {1: ord("a"), 2: ord("b"), 3: ord("c")}


def test_a_test_split_is_used_for_validation_and_said(tmp_path):
    only_training_data(tmp_path, test=True)
    with pytest.warns(UserWarning, match="no validation split found; the test split is used for validation"):
        splits = load_detection_data(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 10, "validation": 2}


def test_an_empty_validation_split_is_replaced(tmp_path):
    only_training_data(tmp_path)
    (tmp_path / "val").mkdir()
    write.coco(tmp_path / "val.json", tmp_path / "val", [])
    with pytest.warns(UserWarning, match="the validation split is empty; every fifth"):
        splits = load_detection_data(tmp_path)
    assert len(splits["validation"]) == 2


def test_a_complete_data_set_gives_no_warning(tmp_path):
    write.yolo_yaml(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_detection_data(tmp_path)


def test_the_only_json_is_read_even_if_it_is_broken(tmp_path):
    write.text(tmp_path / "labels.json", '{"images": [')
    with pytest.raises(DataError, match=r"labels\.json: expected a COCO detection json, but this is not json"):
        load_detection_data(tmp_path)
