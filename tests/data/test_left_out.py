"""Every picture is used, or its absence is said; and data may be given as one file."""

import json
import shutil
import warnings

import layout_writers as write
import pytest
from coco_files import annotation, coco_content, image_entry, write_coco
from layout_writers import LAYOUTS, SPLITS
from tool_writers import labelme, roboflow_coco, roboflow_tensorflow_csv

from hf_detr.data import DataError, ReadOptions, load_detection_data, load_streaming_data


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def messages(load, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(data)
    return [str(warning.message).partition(": ")[2] for warning in caught if warning.category is UserWarning]


@pytest.mark.parametrize(
    "write_layout", [f for f in LAYOUTS if "parquet" not in f.__name__], ids=lambda function: function.__name__
)
def test_files_that_are_no_pictures_are_counted_and_named_once(tmp_path, write_layout):
    write_layout(tmp_path / "data")
    for name in ("b.pdf", "inner/a.mp4", "inner/Thumbs.db", ".hidden.pdf", "__MACOSX/x.pdf", "c.svg"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    left = [text for text in messages(load_detection_data, tmp_path / "data") if "left out" in text]
    if write_layout is write.saved_to_disk:
        assert left == ["left out 3 files that are no pictures: b.pdf, c.svg, inner/a.mp4"]
    else:
        assert "left out 3 files that are no pictures: b.pdf, c.svg, inner/a.mp4" in left


@pytest.mark.parametrize("write_layout", [write.coco_published, roboflow_coco, write.voc_split_folders])
def test_pictures_that_no_annotation_names_are_counted_and_named_once(tmp_path, write_layout):
    write_layout(tmp_path)
    folder = next(path for path in sorted(tmp_path.rglob("*")) if path.is_dir() and "train" in path.name)
    for name in ("unknown.JFIF", "other.webp"):
        shutil.copy(next(folder.glob("*.png")), folder / name)
    said = messages(load_detection_data, tmp_path)
    expected = f"left out 2 pictures that no annotation names: {folder.name}/other.webp, {folder.name}/unknown.JFIF"
    assert said.count(expected) == 1


def test_pictures_without_a_row_in_a_csv_are_said(tmp_path):
    roboflow_tensorflow_csv(tmp_path)
    assert messages(load_detection_data, tmp_path)[0].startswith(
        "left out 1 picture that no annotation names: train/b"
    )


@pytest.mark.filterwarnings("ignore:.*no validation split")
def test_missing_pictures_are_counted_and_named(tmp_path):
    content = coco_content([annotation(image_id=i) for i in range(1, 9)], [image_entry(i) for i in range(1, 9)])
    write_coco(tmp_path / "labels.json", tmp_path / "images", content)
    for number in range(1, 6):
        (tmp_path / "images" / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"5 images cannot be used: .*\d\.png, image id \d: .*does not exist"):
        load_detection_data(tmp_path)


def test_names_that_lead_to_several_pictures_are_said(tmp_path):
    content = coco_content(images=[image_entry(i) for i in (1, 2)])
    write_coco(tmp_path / "labels.json", tmp_path / "x", content)
    (tmp_path / "y").mkdir()
    shutil.copy(tmp_path / "x" / "1.png", tmp_path / "y")
    with pytest.warns() as caught, pytest.raises(DataError, match=r"1\.png, image id 1: .*does not exist"):
        load_detection_data(tmp_path)
    said = "1 name of pictures cannot be followed: 1.png (the image file does not exist, and several pictures have its"
    assert any(f"{said} name: x/1.png, y/1.png)" in str(warning.message) for warning in caught)


FILES = {
    write.yolo_yaml: "data.yaml",
    write.yolo_image_lists: "birds.yaml",
    write.coco_published: "annotations/instances_train2017.json",
    write.image_folder_one_file_numbers: "metadata.jsonl",
}


@pytest.mark.parametrize("load", [load_detection_data, load_streaming_data])
@pytest.mark.parametrize("write_layout", FILES, ids=lambda function: function.__name__)
@pytest.mark.filterwarnings("ignore:.*no validation split")
def test_the_file_itself_is_read(tmp_path, write_layout, load):
    write_layout(tmp_path)
    splits = load(tmp_path / FILES[write_layout])
    count = sum(1 for split in splits.values() for _ in split)
    assert count == (3 if "instances" in FILES[write_layout] else sum(map(len, SPLITS.values())))


def test_a_given_file_is_found_from_where_one_stands(tmp_path, monkeypatch):
    write.yolo_yaml(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(load_detection_data("data.yaml")["train"]) == 3


def test_a_parquet_file_is_read(tmp_path):
    write.table(tmp_path / "x", "train").to_parquet(tmp_path / "birds.parquet")
    with pytest.warns(UserWarning, match="no validation split"):
        assert sum(map(len, load_detection_data(tmp_path / "birds.parquet").values())) == 3


def test_a_file_of_another_kind_is_answered_with_what_is_read(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt: no known layout found; looked for"):
        load_detection_data(tmp_path / "notes.txt")


def test_a_table_that_lacks_a_column_is_told_which(tmp_path):
    for first, missing in (
        ("filename,class,xmin,ymin,xmax", "ymax"),
        ("image_id,label,x1,x2,y2", "y1"),
        ("class,xmin,ymin,xmax,ymax", "filename"),
    ):
        (tmp_path / "labels.csv").write_text(f"{first}\n")
        with pytest.raises(DataError, match=rf"labels\.csv: column '{missing}' is missing; found .*{first[-2:]}$"):
            load_detection_data(tmp_path)


def test_a_folder_of_nothing_but_pictures_is_told_so(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no annotation file in this folder; looked for\n"):
        load_detection_data(tmp_path)


def test_a_folder_that_holds_nothing_but_the_data_is_as_good_as_the_data(tmp_path):
    write.yolo_yaml(tmp_path / "outer" / "inner")
    (tmp_path / "outer" / ".DS_Store").touch()
    assert len(load_detection_data(tmp_path / "outer")["train"]) == 3


@pytest.mark.parametrize("missing", ["annotations", None])
def test_test_images_without_annotations(tmp_path, missing):
    for name in ("train", "val", "test"):
        content = coco_content() if name != "test" else coco_content(annotations=[])
        write_coco(tmp_path / f"{name}.json", tmp_path / name, content)
    if missing:
        content.pop(missing)
        (tmp_path / "test.json").write_text(json.dumps(content))
    said = messages(load_detection_data, tmp_path)
    assert ("left out this file of test images: it has no annotations" in said) == bool(missing)


def write_ten(folder):
    """Ten pictures of which two are missing, and annotations of one that is not declared."""
    ids = range(1, 11)
    content = coco_content([annotation(i, image_id=i) for i in (*ids, 99)], [image_entry(i) for i in ids])
    write_coco(folder / "labels.json", folder / "images", content)
    for number in (4, 7):
        (folder / "images" / f"{number}.png").unlink()


def test_what_is_unusable_is_an_error_that_says_how_to_go_on(tmp_path):
    write_ten(tmp_path)
    with pytest.warns(UserWarning, match="no validation"), pytest.raises(DataError) as caught:
        load_detection_data(tmp_path)
    for expected in (
        "3 images cannot be used",
        "4.png, image id 4",
        "7.png, image id 7",
        "image id 99, annotation id",
    ):
        assert expected in str(caught.value)


def test_what_is_unusable_is_left_out_where_asked_and_counted(tmp_path):
    write_ten(tmp_path)
    with pytest.warns(UserWarning, match="left out 3 images") as caught:
        splits = load_detection_data(tmp_path, options=ReadOptions(skip_unusable=True))
    assert sorted([*splits["train"]["image_id"], *splits["validation"]["image_id"]]) == [1, 2, 3, 5, 6, 8, 9, 10]
    assert len(splits["validation"]) >= 1
    assert any("4.png" in str(warning.message) and "7.png" in str(warning.message) for warning in caught)


def test_a_broken_file_of_labelme_is_an_error_not_a_picture_less(tmp_path):
    labelme(tmp_path)
    (tmp_path / "a.json").write_text("{broken")
    with pytest.raises(DataError, match=r"a\.json: expected a json of labelme, but this is not json"):
        load_detection_data(tmp_path)
