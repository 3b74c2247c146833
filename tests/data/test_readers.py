"""What the readers of Pascal VOC, YOLO, image folders and tables do with odd and with unusable files."""

import layout_writers as write
import pytest
from layout_writers import SPLITS

from hf_detr.data import DataError, load_detection_data, load_streaming_data, source_splits


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
        ("<name>cat", "<name>", r"c\.xml, image id 3, annotation id 1, field 'category': None is not declared"),
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
        ("{train: images/train, nc: 2, names: [ant]}", r"field 'nc': it says 2, but 'names' has 1"),
    ],
)
def test_an_unusable_data_yaml_is_explained(tmp_path, content, message):
    write.yolo_yaml(tmp_path)
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
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
