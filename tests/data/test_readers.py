"""What the readers of Pascal VOC, YOLO, image folders and tables do with odd and with unusable files."""

import datasets
import layout_writers as write
import pytest
from datasets import DatasetDict
from layout_writers import SPLITS

from hf_detr.data import (
    DataError,
    ReadOptions,
    category_ids,
    detection_features,
    load_detection_data,
    load_streaming_data,
    source_splits,
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_difficult_objects_of_voc_are_crowds(tmp_path):
    write.voc_devkit(tmp_path)
    file = tmp_path / "Annotations" / "c.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    assert load_detection_data(tmp_path)["train"][2]["objects"]["iscrowd"] == [1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", r"c\.xml: expected a Pascal VOC xml, but this is not xml"),
        ("annotation>", "image>", r"c\.xml: .*root 'annotation', found 'image'"),
        ("<xmin>1", "<xmin>one", r"c\.xml, image id 3, annotation id 1, field 'bbox': expected finite numbers"),
        ("<xmax>4", "<xmax>0", r"c\.xml, image id 3, annotation id 1, field 'bbox': .*negative"),
        ("<name>cat", "<name>", r"c\.xml, image id 3, annotation id 1: the object has no category"),
    ],
)
def test_an_unusable_xml_is_named(tmp_path, old, new, message):
    write.voc_devkit(tmp_path)
    file = tmp_path / "Annotations" / "c.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        load_detection_data(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.5 0.5 0.1 0.1", "'category': 7 is not declared"),
        ("cat 0.5 0.5 0.1 0.1", "'category': 'cat' is not declared"),
        ("0 0.5 0.5 0.1", "'bbox': expected four numbers"),
        ("0 0.5 x 0.1 0.1", "'bbox': expected finite numbers"),
        ("0 1.5 0.5 0.1 0.1", "'bbox': .*inside the image of 64x32"),
    ],
)
def test_an_unusable_line_of_yolo_is_named_but_can_be_read(tmp_path, line, message):
    write.yolo_yaml(tmp_path)
    (tmp_path / "labels/train/c.txt").write_text(f"\n{line}\n")
    assert len(source_splits(tmp_path)["train"].records[2].objects) == 1
    with pytest.raises(DataError, match=rf"c\.txt, image id 3, annotation id 2, field {message}"):
        load_detection_data(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: [", r"data\.yaml: expected a yaml file"),
        ("just text", r"data\.yaml: expected 'train', 'val' and 'names'"),
        ("train: images/train", r"field 'names': expected the names"),
        ("{train: nowhere, names: [ant]}", r"field 'train': there is no 'nowhere'; looked for .*nowhere"),
        ("{train: images/train, val: gone, names: [ant]}", r"field 'val': there is no 'gone'; looked for .*gone"),
        ("{train: images/train, val: empty, names: [ant]}", r"field 'val': there is no picture in .*empty"),
        ("{train: images/train, names: [[ant]]}", r"field 'names': expected the names"),
        ("{train: images/train, nc: 2, names: [ant]}", r"field 'nc': it says 2, but 'names' has 1"),
    ],
)
def test_an_unusable_data_yaml_is_explained(tmp_path, content, message):
    write.yolo_yaml(tmp_path)
    (tmp_path / "data.yaml").write_text(content)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        load_detection_data(tmp_path)


YAML_WORDS = ["no", "Yes", "on", "off", "1e3", "null", "2024-01-01", "0x1F", "1_000", "~", "12:30:45", "007", "true"]


@pytest.mark.parametrize("as_mapping", [True, False])
def test_words_of_yaml_stay_text_as_names_of_classes(tmp_path, as_mapping):
    write.yolo_yaml(tmp_path)
    lines = [f"  {index}: {word}" if as_mapping else f"- {word}" for index, word in enumerate(YAML_WORDS)]
    text = "\n".join([f"train: images/train\nval: images/val\nnc: {len(YAML_WORDS)}\nnames:", *lines])
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8-sig")
    assert list(source_splits(tmp_path)["train"].names.values()) == YAML_WORDS


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("1 0.5 0.5 0.25 0.5", [24, 8, 16, 16]),
        ("1 0.5 0.5 0.25 0.5 0.87", [24, 8, 16, 16]),
        ("1 0.375 0.25 0.625 0.25 0.5 0.75", [24, 8, 16, 16]),
        ("1 0.375 0.25 0.625 0.25 0.5 0.75 0.9", [24, 8, 16, 16]),
        ("1.0 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75 0.375 0.25", [24, 8, 16, 16]),
    ],
    ids=["box", "box and confidence", "polygon", "polygon and confidence", "closed polygon"],
)
def test_boxes_and_polygons_of_yolo_with_and_without_confidence(tmp_path, line, box):
    write.yolo_yaml(tmp_path)
    (tmp_path / "labels/train/c.txt").write_text(f"\ufeff0 0.5 0.5 0.25 0.25\r\n{line}\r\n", encoding="utf-8")
    row = load_detection_data(tmp_path)["train"][2]
    assert row["objects"]["bbox"] == [[24, 12, 16, 8], box]
    assert row["objects"]["category"] == [0, 1]


def test_a_fifth_number_that_is_no_confidence_is_refused(tmp_path):
    write.yolo_yaml(tmp_path)
    (tmp_path / "labels/train/c.txt").write_text("0 0.5 0.5 0.25 0.25 17\n")
    with pytest.raises(DataError, match=r"c\.txt, image id 3, annotation id 1, field 'bbox': expected four numbers"):
        load_detection_data(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "path: 'C:/Users/me/data'\ntrain: ./images/train\nval: ./images/val",
        "train: images\\train\nval: images\\val",
        "train: /content/datasets/yolo/images/train\nval: /content/datasets/yolo/images/val",
        "train: D:\\data\\yolo\\images\\train\nval: D:\\data\\yolo\\images\\val",
        "train: images/train\nval: images/valid",
        "train: images/train\nvalid: /kaggle/input/x/images/validation",
    ],
)
def test_paths_of_another_machine_in_a_data_yaml(tmp_path, content):
    write.yolo_yaml(tmp_path)
    (tmp_path / "data.yaml").write_text(f"{content}\nnames: [ant, bee, cat]\n")
    splits = load_detection_data(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 3, "validation": 2}


def test_a_missing_validation_folder_does_not_become_that_of_all_images(tmp_path):
    write.yolo_yaml(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: ../valid/images\nnames: [ant, bee, cat]\n")
    for file in (tmp_path / "images/val").iterdir():
        file.unlink()
    (tmp_path / "images/val").rmdir()
    with pytest.raises(DataError, match=r"field 'val': there is no '\.\./valid/images'; .*every fifth training image"):
        load_detection_data(tmp_path)


def test_missing_test_images_of_a_data_yaml_are_said(tmp_path):
    write.yolo_yaml(tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("test: ../test/images\n")
    with pytest.warns(UserWarning, match=r"data\.yaml, field 'test': there is no '\.\./test/images'; .*no test split"):
        assert set(load_detection_data(tmp_path)) == {"train", "validation"}


def test_label_files_without_an_image_are_said(tmp_path):
    write.yolo_yaml(tmp_path)
    (tmp_path / "images/train/c.png").unlink()
    with pytest.warns(UserWarning, match=r"left out 1 label file to which there is no image: labels/train/c\.txt"):
        assert len(load_detection_data(tmp_path)["train"]) == 2


@pytest.mark.parametrize("listed", ["data/images/{}.png", "C:\\x\\images\\{}.png", "/x/{}.png", "images/{}.PNG", "{}"])
def test_lists_of_images_of_any_kind(tmp_path, listed):
    write.yolo_image_lists(tmp_path)
    for split, name in (("train", "train"), ("validation", "val")):
        lines = [listed.format(image) for image, _ in SPLITS[split]]
        (tmp_path / f"{name}.txt").write_text("\r\n".join([*lines, ""]), encoding="utf-8-sig")
    splits = load_detection_data(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 3, "validation": 2}


def test_an_image_that_a_list_names_but_that_is_missing_is_named(tmp_path):
    write.yolo_image_lists(tmp_path)
    (tmp_path / "images/c.png").unlink()
    with pytest.raises(DataError, match=r"c\.png, image id 3: the image file does not exist"):
        load_detection_data(tmp_path)


def test_entities_of_xml_are_refused(tmp_path):
    write.voc_devkit(tmp_path)
    file = tmp_path / "Annotations" / "c.xml"
    for encoding in ("utf-8", "utf-16"):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        file.write_text(f"{text}<annotation><filename>&x;</filename></annotation>", encoding=encoding)
        with pytest.raises(DataError, match=r"c\.xml: .*declares entities"):
            load_detection_data(tmp_path)


def test_yolo_images_without_any_label_file_are_refused(tmp_path):
    write.yolo_yaml(tmp_path)
    for file in (tmp_path / "labels").rglob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match=r"none of the 3 images has a label file; looked for .*a\.txt"):
        load_detection_data(tmp_path)


@pytest.mark.parametrize("write_layout", [write.yolo_yaml, write.voc_floats_without_size, write.image_folder])
def test_an_unreadable_image_whose_size_is_needed_is_named(tmp_path, write_layout):
    write_layout(tmp_path)
    [file] = tmp_path.rglob("a.png")
    file.write_bytes(b"no picture")
    assert source_splits(tmp_path)["train"].records[0].width is None
    with pytest.raises(DataError, match=r"a\.png, image id 1: expected an image, but its header cannot be read"):
        load_detection_data(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", r"line 4: .*not json"), ('{"objects": {}}', r"line 4: .*with a 'file_name'")],
)
def test_an_unusable_line_of_metadata_is_named(tmp_path, line, message):
    write.image_folder(tmp_path)
    with (tmp_path / "train/metadata.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(DataError, match=rf"metadata\.jsonl: {message}"):
        load_detection_data(tmp_path)


def test_numbers_without_names_are_named_by_themselves_and_said(tmp_path):
    write.image_folder_one_file_numbers(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.warns(UserWarning, match=r"numbers without names, and are named by them: \[0, 1, 2\]"):
        assert list(source_splits(tmp_path)["train"].names.values()) == ["0", "1", "2"]


def test_a_table_without_objects_says_what_it_has(tmp_path):
    table = write.table(tmp_path, "train").remove_columns("objects")
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(DataError, match=r"expected a column 'objects' .* found the columns \['height', 'image'"):
        load_detection_data(tmp_path / "data")


def test_an_unusable_row_of_a_stream_is_named(tmp_path, monkeypatch):
    boxes = [*SPLITS["train"], ("f", [(60, 2, 30, 4, "cat")])]
    monkeypatch.setitem(write.SPLITS, "train", boxes)
    write.saved_to_disk(tmp_path / "data")
    stream = iter(load_streaming_data(tmp_path / "data")["train"])
    for _ in range(3):
        next(stream)
    with pytest.raises(DataError, match=r"row 4: .*\(train\), image id 4, .*field 'bbox'"):
        next(stream)


def test_an_unusable_row_of_a_stream_is_left_out_and_named(tmp_path, monkeypatch):
    boxes = [("f", [(60, 2, 30, 4, "cat")]), *SPLITS["train"]]
    monkeypatch.setitem(write.SPLITS, "train", boxes)
    write.saved_to_disk(tmp_path / "data")
    stream = load_streaming_data(tmp_path / "data", options=ReadOptions(skip_unusable=True))["train"]
    for _ in range(2):  # passes
        with pytest.warns(UserWarning, match=r"\(train\): left out row 1: .*image id 1, .*field 'bbox'") as said:
            assert [row["image_id"] for row in stream] == [2, 3, 4]
        assert len(said) == 1


@pytest.mark.parametrize("load", [load_detection_data, load_streaming_data])
@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_category_ids_of_a_saved_data_set_stay(tmp_path, kind, load):
    write.saved_to_disk(tmp_path / "first")
    ids = {"ant": 7, "bee": "b-1", "cat": 90}
    splits = load_detection_data(tmp_path / "first")
    features = detection_features(list(ids), category_ids=ids)
    splits = DatasetDict({name: rows.cast(features) for name, rows in splits.items()})
    if kind == "saved":
        splits.save_to_disk(tmp_path / "again")
    else:
        (tmp_path / "again").mkdir()
        for name, rows in splits.items():
            rows.to_parquet(tmp_path / "again" / f"{name}.parquet")
    again = load(tmp_path / "again")
    assert {name: category_ids(rows) for name, rows in again.items()} == {"train": ids, "validation": ids}
    assert {name: [row["objects"] for row in rows] for name, rows in again.items()} == {
        name: rows["objects"][:] for name, rows in splits.items()
    }


def test_a_name_on_the_hub_that_cannot_be_loaded_says_so(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match=r"owner/name: there is no such folder, .*\(no network\).*check the name"):
        load_detection_data("owner/name")


def test_a_name_on_the_hub_is_loaded(tmp_path, monkeypatch):
    tables = {split: write.table(tmp_path, split) for split in SPLITS}
    monkeypatch.setattr("datasets.load_dataset", lambda name, subset, streaming: tables)
    splits = load_detection_data("owner/name:small")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 3, "validation": 2}


FLAT = {"bbox": [4, 8, 16, 8, 0, 0, 64, 32], "label": [1, 0]}
OBJECTS = {
    "bboxes, category_id": {"objects": {"bboxes": [[4, 8, 16, 8], [0, 0, 64, 32]], "category_id": [1, 0]}},
    "boxes, classes": {"annotations": {"boxes": [[4, 8, 16, 8], [0, 0, 64, 32]], "classes": [1, 0]}},
    "box, class_label": {
        "faces": [{"box": [4, 8, 16, 8], "class_label": 1}, {"box": [0, 0, 64, 32], "class_label": 0}]
    },
    "a container of any name": {"birds": {"bbox": [[4, 8, 16, 8], [0, 0, 64, 32]], "label": [1, 0]}},
    "names before ids": {
        "objects": {"bbox": [[4, 8, 16, 8], [0, 0, 64, 32]], "category_id": [5, 9], "category_name": ["1", "0"]}
    },
    "columns of their own": {"bboxes": [[4, 8, 16, 8], [0, 0, 64, 32]], "labels": [1, 0]},
    "flat boxes": FLAT,
    "flat boxes in a container": {"objects": FLAT},
    "corners": {
        "objects": {"xmin": [4, 0], "ymin": [8, 0], "xmax": [20, 64], "ymax": [16, 32], "label": [1, 0]},
    },
}


def check_table(folder, objects, image="image"):
    files = [write.picture(folder.parent / "pictures", name) for name in "ab"]
    values = [{"path": None, "bytes": file.read_bytes()} for file in files]
    values = [str(file) for file in files] if image == "file_name" else values
    folder.mkdir()
    datasets.Dataset.from_list([{image: value, **objects} for value in values]).to_parquet(folder / "train.parquet")
    row = load_detection_data(folder)["train"][0]
    assert row["objects"]["bbox"] == [[4, 8, 16, 8], [0, 0, 64, 32]]
    assert row["objects"]["category"] == [1, 0]
    assert row["image"].size == (64, 32)


@pytest.mark.filterwarnings("ignore:.*(numbers without names|no validation)")
@pytest.mark.parametrize("objects", OBJECTS.values(), ids=OBJECTS)
def test_the_names_that_people_give_to_objects(tmp_path, objects):
    check_table(tmp_path / "data", objects)


@pytest.mark.filterwarnings("ignore:.*(numbers without names|no validation)")
@pytest.mark.parametrize("image", ["img", "pixel_values", "jpg", "file_name"])
def test_the_names_that_people_give_to_pictures(tmp_path, image):
    check_table(tmp_path / "data", FLAT, image)


@pytest.mark.parametrize("load", [load_detection_data, load_streaming_data])
def test_a_table_without_categories_is_of_one_class_and_says_so(tmp_path, load):
    for split in ("train", "validation"):
        rows = [
            {"image": str(write.picture(tmp_path / "x", name)), "faces": {"bbox": [[4, 8, 16, 8]]}} for name in "ab"
        ]
        table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
        (tmp_path / "data").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / "data" / f"{split}.parquet")
    with pytest.warns(UserWarning, match=r"the objects have no classes, and are all taken as 'object'"):
        row = next(iter(load(tmp_path / "data")["train"]))
    assert row["objects"]["category"] == [0]
    with pytest.warns(UserWarning, match="no classes"):
        assert list(source_splits(tmp_path / "data")["train"].names.values()) == ["object"]


def test_splits_of_other_names_are_said(tmp_path, monkeypatch):
    tables = {name: write.table(tmp_path, "train") for name in ("train", "train_small", "validation", "extra")}
    monkeypatch.setattr("datasets.load_dataset", lambda name, subset, streaming: tables)
    with pytest.warns(UserWarning, match=r"owner/name: left out 2 splits of another name: train_small, extra"):
        assert set(load_detection_data("owner/name")) == {"train", "validation"}
