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
    "text": ({"bbox": ["one", 1, 2, 3]}, "'bbox': expected finite"),
    "no box and no outline": ({"bbox": None}, "'bbox': expected four numbers"),
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
    "duplicate image id": (
        {"images": [image_entry(), image_entry()]},
        r"images: id 1 is declared twice \(.*1\.png, .*1\.png\)",
    ),
    "no category": ({"annotations": [{"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4]}]}, "'category_id' is missing"),
    "no images": ({"images": [], "annotations": []}, "the data set is empty"),
    "no categories": ({"categories": [], "annotations": []}, "at least one category"),
    "duplicate category id": ({"categories": [CATEGORIES[0], {"id": 1, "name": "dog"}]}, "category id 1 appears more"),
    "duplicate category name": (
        {
            "categories": [{"id": i, "name": "cat"} for i in (1, 3)],
            "annotations": [annotation(), annotation(2, category_id=1)],
        },
        r"distinct.*\['cat'\]",
    ),
    "category without a name": ({"categories": [{"id": 3}]}, "'name': this field is required"),
    "annotation of no image": (
        {"annotations": [annotation(4, image_id=9)]},
        "image id 9, annotation id 4, .*image_id",
    ),
    "annotation without image": ({"annotations": [{"id": 1}]}, "'image_id': this field is required"),
    "annotation no object": ({"annotations": [[1, 2]]}, "'image_id': this field is required"),
    "annotation of no image among ids of text": (
        {"images": [image_entry() | {"id": "one"}]},
        "image id 1, annotation id 1, field 'image_id': no image of this id is declared",
    ),
    "repeated image id of text": (
        {"images": [image_entry() | {"id": "one"}] * 2, "annotations": []},
        r"images: id one is declared twice \(.*, .*\)",
    ),
    "image without a file": ({"images": [{"id": 1}]}, "image id 1, field 'file_name': this field is required"),
    "category id of a list": (
        {"categories": [{"id": [1], "name": "cat"}]},
        r"'id': expected a whole number or a text",
    ),
    "category of no name": ({"categories": [{"id": 1, "name": None}]}, "'name': expected str, got None"),
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


def test_ids_of_text_are_read_and_images_numbered_from_one(tmp_path):
    content = coco_content(
        images=[image_entry(1, id="b"), image_entry(2, id="a")],
        annotations=[annotation("x", image_id="a", category_id="d"), annotation(None, image_id="a", category_id="c")],
        categories=[{"id": "d", "name": "dog"}, {"id": "c", "name": "cat"}],
    )
    for number in (1, 2):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "instances.json", tmp_path)
    assert category_names(dataset) == ["dog", "cat"]
    assert dataset["image_id"][:] == [1, 2]
    assert [row["category"] for row in dataset["objects"]] == [[], [0, 1]]
    assert dataset[1]["objects"]["id"] == [1, 2]  # those without a number are numbered by their place in the file


HARMLESS = {
    "image size as 40.0": lambda c: c["images"][0].update(width=40.0, height="30"),
    "image ids as 1.0": lambda c: (c["images"][0].update(id=1.0), c["annotations"][0].update(image_id="1")),
    "category ids as text": lambda c: [entry.update(id=str(entry["id"])) for entry in c["categories"]],
    "category of an object as 3.0": lambda c: c["annotations"][0].update(category_id=3.0),
    "iscrowd null": lambda c: c["annotations"][0].update(iscrowd=None),
    "iscrowd false": lambda c: c["annotations"][0].update(iscrowd=False),
    "iscrowd missing": lambda c: c["annotations"][0].pop("iscrowd"),
    "area null": lambda c: c["annotations"][0].update(area=None),
    "box of text": lambda c: c["annotations"][0].update(bbox=["4", "6.0", 20, 10]),
    "no id": lambda c: c["annotations"][0].pop("id"),
    "polygon": lambda c: c["annotations"][0].update(bbox=[], segmentation=[[4, 6, 24, 6, 24, 16], [5, 7, 6, 8, 5, 8]]),
    "flat polygon": lambda c: c["annotations"][0].update(bbox=None, segmentation=[4, 6, 24, 6, 24, 16]),
    "runs of a mask": lambda c: c["annotations"][0].update(
        bbox=None, segmentation={"size": [30, 40], "counts": [4 * 30 + 6, *([10, 20] * 19), 10, 14 + 16 * 30]}
    ),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_harmless_differences_are_read(tmp_path, change):
    content = coco_content()
    change(content)
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    row = read_coco(tmp_path / "instances.json", tmp_path)[0]
    assert (row["image_id"], row["width"], row["height"]) == (1, 40, 30)
    assert row["objects"]["bbox"] == [[4, 6, 20, 10]]
    assert row["objects"]["category"] == [1]
    assert row["objects"]["iscrowd"] == [0]


def test_a_compressed_mask_gives_its_box(tmp_path):
    mask = pytest.importorskip("pycocotools.mask")
    import numpy as np

    pixels = np.zeros((30, 40), dtype=np.uint8, order="F")
    pixels[6:16, 4:24] = 1
    runs = mask.encode(pixels)
    content = coco_content([annotation(bbox=None, segmentation={"size": [30, 40], "counts": runs["counts"].decode()})])
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "instances.json", tmp_path)[0]["objects"]["bbox"] == [[4, 6, 20, 10]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_do_no_harm(write, encoding):
    json_path, folder = write()
    json_path.write_text(json_path.read_text(), encoding=encoding)
    assert len(read_coco(json_path, folder)) == 1


ROOTS = {
    "others call it their supercategory": [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 3, "name": "dog", "supercategory": "pets"},
    ],
    "its name repeats": [
        {"id": 0, "name": "dog", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "dog"},
        {"id": 3, "name": "dog", "supercategory": "dog"},
    ],
}


@pytest.mark.parametrize("categories", ROOTS.values(), ids=ROOTS)
def test_a_category_that_only_names_others_is_left_out_and_said(write, categories):
    with pytest.warns(UserWarning, match=r"left out the category '\w+', which no object has and which only names"):
        dataset = read_coco(*write(categories=categories))
    assert category_names(dataset) == ["cat", "dog"]
    assert dataset[0]["objects"]["category"] == [1]


def test_a_category_that_has_objects_or_stands_alone_is_kept(write):
    categories = [*ROOTS["others call it their supercategory"], {"id": 9, "name": "bird", "supercategory": "bird"}]
    dataset = read_coco(*write(annotations=[annotation(category_id=0)], categories=categories))
    assert category_names(dataset) == ["pets", "cat", "dog", "bird"]
