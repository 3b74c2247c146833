import json
import math
import warnings

import pytest
from coco_files import CATEGORIES, annotation, coco_content, image_entry, write_coco
from PIL import Image

from hf_detr.data import DataError, category_names, read_coco


@pytest.fixture
def write(tmp_path):
    def write(**content):
        return write_coco(tmp_path / "instances.json", tmp_path / "images", coco_content(**content))

    return write


def test_reads_boxes_labels_names_and_crowds(write):
    files = write(
        annotations=[annotation(11), annotation(12, bbox=[0, 0, 5.5, 6], category_id=1, area=None, iscrowd=1)]
    )
    dataset = read_coco(*files)
    row = dataset[0]
    assert category_names(dataset) == ["cat", "dog"]
    assert row["image"].size == (40, 30)
    assert (row["image_id"], row["width"], row["height"]) == (1, 40, 30)
    assert row["objects"] == {
        "id": [11, 12],
        "bbox": [[4, 6, 20, 10], [0, 0, 5.5, 6]],
        "category": [1, 0],
        "area": [150, 33],  # without an area, the box's own
        "iscrowd": [0, 1],
    }


@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (7, 18, 90)])
def test_category_ids_become_labels_in_the_order_of_the_ids(write, ids):
    shuffled = [{"id": ids[i], "name": "abc"[i]} for i in (2, 0, 1)]
    objects = [annotation(i, category_id=ids[i]) for i in range(3)]
    dataset = read_coco(*write(annotations=objects, categories=shuffled))
    assert category_names(dataset) == ["a", "b", "c"]
    assert dataset[0]["objects"]["category"] == [0, 1, 2]


def test_images_without_annotations_are_kept(write):
    dataset = read_coco(*write(images=[image_entry(5), image_entry(2)], annotations=[annotation(image_id=2)]))
    assert [row["image_id"] for row in dataset] == [5, 2]
    assert dataset[0]["objects"] == {"id": [], "bbox": [], "category": [], "area": [], "iscrowd": []}


def test_a_data_set_without_any_annotation_is_readable(write):
    assert read_coco(*write(annotations=[]))[0]["objects"]["bbox"] == []


def test_zero_area_boxes_are_left_out_and_counted_once(write):
    objects = [annotation(1), annotation(2, bbox=[5, 5, 0, 4]), annotation(3, bbox=[40, 2, 1.5, 4])]
    files = write(annotations=objects)
    with pytest.warns(UserWarning, match=r"instances\.json: left out 2 boxes of zero area") as caught:
        dataset = read_coco(*files)
    assert len(caught) == 1
    assert dataset[0]["objects"]["id"] == [1]


def test_a_small_overflow_is_clipped(write):
    dataset = read_coco(
        *write(annotations=[annotation(bbox=[-1.5, -2, 20, 10]), annotation(2, bbox=[30, 20, 12, 11])])
    )
    assert dataset[0]["objects"]["bbox"] == [[0, 0, 18.5, 8], [30, 20, 10, 10]]


def test_clean_data_gives_no_warning(write):
    files = write()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_coco(*files)


UNUSABLE_OBJECTS = {
    "far outside": ({"bbox": [30, 20, 30, 5]}, r"'bbox': expected \(x, y, width, height\) inside .* 40x30"),
    "left of the image": ({"bbox": [-3, 2, 10, 5]}, "'bbox': expected"),
    "not a number": ({"bbox": [math.nan, 1, 2, 3]}, "'bbox': expected finite"),
    "infinite": ({"bbox": [1, 1, math.inf, 3]}, "'bbox': expected finite"),
    "null": ({"bbox": [1, 1, None, 3]}, "'bbox': expected finite"),
    "text": ({"bbox": ["1", 1, 2, 3]}, "'bbox': expected finite"),
    "three numbers": ({"bbox": [1, 1, 2]}, "'bbox': expected four numbers"),
    "no list": ({"bbox": "1 1 2 2"}, "'bbox': expected four numbers"),
    "negative width": ({"bbox": [10, 10, -4, 3]}, "'bbox': .*negative"),
    "undeclared category": ({"category_id": 2}, r"'category': 2 is not declared; .*\[1, 3\]"),
    "category name": ({"category_id": "dog"}, "'category': 'dog' is not declared"),
    "negative area": ({"area": -1}, "'area': expected"),
    "text area": ({"area": "big"}, "'area': expected"),
    "crowd of 2": ({"iscrowd": 2}, "'iscrowd': expected 0 or 1"),
}


@pytest.mark.parametrize(("changes", "message"), UNUSABLE_OBJECTS.values(), ids=UNUSABLE_OBJECTS)
def test_an_unusable_object_is_named(write, changes, message):
    files = write(annotations=[annotation(7), annotation(8, **changes)])
    with pytest.raises(DataError, match=rf"instances\.json, image id 1, annotation id 8, field {message}"):
        read_coco(*files)


def test_boxes_that_look_like_corners_are_said_to(write):
    files = write(annotations=[annotation(bbox=[2, 2, 10, 10]), annotation(2, bbox=[25, 15, 38, 29])])
    with pytest.raises(DataError, match="looks like xyxy"):
        read_coco(*files)


@pytest.mark.parametrize("other", [[35, 25, 20, 20], [30, 2, 45, 9]])
def test_boxes_that_fit_neither_way_are_not_said_to_be_corners(write, other):
    files = write(annotations=[annotation(bbox=[25, 15, 38, 29]), annotation(2, bbox=other)])
    with pytest.raises(DataError) as caught:
        read_coco(*files)
    assert "looks like xyxy" not in str(caught.value)


UNUSABLE_FILES = {
    "duplicate image id": ({"images": [image_entry(), image_entry()]}, "image id 1: .*more than once"),
    "no images": ({"images": [], "annotations": []}, "the data set is empty"),
    "no categories": ({"categories": [], "annotations": []}, "at least one category"),
    "duplicate category id": ({"categories": [CATEGORIES[0], {"id": 1, "name": "dog"}]}, "category id 1 appears more"),
    "duplicate category name": ({"categories": [{"id": i, "name": "cat"} for i in (1, 3)]}, r"distinct.*\['cat'\]"),
    "category without a name": ({"categories": [{"id": 3}]}, "'name': this field is required"),
    "annotation of no image": (
        {"annotations": [annotation(4, image_id=9)]},
        "image id 9, annotation id 4, .*image_id",
    ),
    "annotation without id": (
        {"annotations": [{"image_id": 1}]},
        "image id 1, field 'id': expected an integer, got None",
    ),
    "annotation without image": ({"annotations": [{"id": 1}]}, "'image_id': this field is required"),
    "annotation no object": ({"annotations": [[1, 2]]}, "'image_id': this field is required"),
    "image id of text": ({"images": [image_entry() | {"id": "one"}]}, "'image_id': expected an integer, got 'one'"),
    "image without a file": ({"images": [{"id": 1}]}, "image id 1, field 'file_name': this field is required"),
    "category id of text": ({"categories": [{"id": "1", "name": "cat"}]}, "'id': expected int, got '1'"),
    "image of no width": (
        {"images": [image_entry() | {"width": 0}]},
        "image id 1, field 'width': expected a positive",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNUSABLE_FILES.values(), ids=UNUSABLE_FILES)
def test_an_unusable_file_is_explained(tmp_path, content, message):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco_content(**content)))
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=rf"instances\.json.*{message}"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{broken", "this is not json"),
        ("[1, 2]", "got a list"),
        ('{"shapes": []}', r"a list 'images', found \['shapes'\]"),
        ('{"images": [], "categories": []}', "a list 'annotations'"),
        ('{"images": {}, "annotations": [], "categories": []}', "a list 'images'"),
    ],
)
def test_json_that_is_not_coco_is_refused(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"labels\.json: .*{message}"):
        read_coco(path, tmp_path)


def test_binary_and_missing_annotation_files_are_refused(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"binary\.json: .*not json"):
        read_coco(tmp_path / "binary.json", tmp_path)
    with pytest.raises(DataError, match=r"absent\.json: the annotation file does not exist"):
        read_coco(tmp_path / "absent.json", tmp_path)


def test_a_missing_image_file_is_named(write):
    json_path, folder = write()
    (folder / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png, image id 1: the image file does not exist"):
        read_coco(json_path, folder)


def test_sizes_that_the_json_lacks_are_read_from_the_images(write):
    json_path, folder = write(images=[{"id": 1, "file_name": "1.png", "width": 40, "height": 30}])
    content = json.loads(json_path.read_text())
    del content["images"][0]["height"]
    json_path.write_text(json.dumps(content))
    row = read_coco(json_path, folder)[0]
    assert (row["width"], row["height"]) == (40, 30)
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png, image id 1: expected an image, .*header"):
        read_coco(json_path, folder)


@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (8, True)])
def test_sizes_are_those_of_the_displayed_image(tmp_path, orientation, turned):
    stored = (30, 40) if turned else (40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", stored).save(tmp_path / "1.jpg", exif=exif)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco_content(images=[{"id": 1, "file_name": "1.jpg"}])))
    row = read_coco(path, tmp_path)[0]
    assert row["image"].size == (row["width"], row["height"]) == (40, 30)


def test_reading_twice_gives_the_same_fingerprint(write):
    files = write()
    assert read_coco(*files)._fingerprint == read_coco(*files)._fingerprint
