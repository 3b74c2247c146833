import pytest
from coco_files import annotation, coco_content, image_entry, write_coco

from hf_detr.data import DataError, category_names, data_fingerprint, load_detection_data


def many_images(count, first=1):
    ids = range(first, first + count)
    return coco_content(
        images=[image_entry(i) for i in ids],
        annotations=[annotation(i, image_id=i, category_id=1 if i % 4 else 3) for i in ids],
    )


@pytest.mark.parametrize("names", [("train", "val"), ("train2017", "val2017")])
@pytest.mark.parametrize("json_folder", ["", "annotations"])
@pytest.mark.parametrize("image_folder", ["", "images"])
def test_coco_layouts(tmp_path, names, json_folder, image_folder):
    for name, count in zip(names, (4, 2), strict=True):
        write_coco(
            tmp_path / json_folder / f"instances_{name}.json", tmp_path / image_folder / name, many_images(count)
        )
    splits = load_detection_data(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 4, "validation": 2}
    assert splits["validation"][0]["image"].size == (40, 30)


@pytest.mark.parametrize("validation", ["valid", "val"])
def test_roboflow_layout(tmp_path, validation):
    for folder, count in (("train", 4), (validation, 2), ("test", 1)):
        write_coco(tmp_path / folder / "_annotations.coco.json", tmp_path / folder, many_images(count))
    splits = load_detection_data(str(tmp_path))
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 4, "validation": 2, "test": 1}


@pytest.mark.parametrize(
    ("json_name", "image_folder"),
    [("labels.json", "images"), ("labels.json", ""), ("annotations/all.json", "images"), ("labels.json", "train")],
)
def test_a_single_file_is_split_and_says_so(tmp_path, json_name, image_folder):
    write_coco(tmp_path / json_name, tmp_path / image_folder, many_images(10))
    with pytest.warns(UserWarning, match=r"no validation split found; every fifth image .* \(seed 7\)"):
        splits = load_detection_data(tmp_path, seed=7)
    ids = {split: set(dataset["image_id"]) for split, dataset in splits.items()}
    assert len(ids["validation"]) == 2
    assert ids["train"] | ids["validation"] == set(range(1, 11))
    assert not ids["train"] & ids["validation"]


def test_training_files_alone_are_split(tmp_path):
    write_coco(tmp_path / "instances_train.json", tmp_path / "train", many_images(5))
    with pytest.warns(UserWarning, match="no validation split found"):
        splits = load_detection_data(tmp_path)
    assert (len(splits["train"]), len(splits["validation"])) == (4, 1)


def test_a_single_image_cannot_be_split(tmp_path):
    write_coco(tmp_path / "labels.json", tmp_path / "images", many_images(1))
    with pytest.raises(DataError, match=r"labels\.json: .*at least two images"):
        load_detection_data(tmp_path)


def test_an_unknown_folder_is_answered_with_what_was_looked_for(tmp_path):
    (tmp_path / "labels.csv").touch()
    with pytest.raises(DataError) as caught:
        load_detection_data(tmp_path)
    for expected in ("instances_train*.json", "_annotations.coco.json", "single COCO json", "labels.csv"):
        assert expected in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: .*no such folder"):
        load_detection_data(tmp_path / "nowhere")


def test_two_training_files_are_ambiguous(tmp_path):
    for name in ("train2014", "train2017"):
        write_coco(tmp_path / f"instances_{name}.json", tmp_path / name, many_images(2))
    with pytest.raises(DataError, match=r"one split 'train', found instances_train2014\.json and instances_train2017"):
        load_detection_data(tmp_path)


def test_labels_are_those_of_the_training_data_in_every_split(tmp_path):
    write_coco(tmp_path / "instances_train.json", tmp_path / "train", many_images(2))
    write_coco(tmp_path / "instances_val.json", tmp_path / "val", coco_content(categories=[{"id": 3, "name": "dog"}]))
    validation = load_detection_data(tmp_path)["validation"]
    assert category_names(validation) == ["cat", "dog"]
    assert validation[0]["objects"]["category"] == [1]


def test_splits_must_agree_about_their_classes(tmp_path):
    write_coco(tmp_path / "instances_train.json", tmp_path / "train", many_images(2))
    other = coco_content(categories=[{"id": 3, "name": "bird"}])
    write_coco(tmp_path / "instances_val.json", tmp_path / "val", other)
    with pytest.raises(
        DataError, match=r"instances_val\.json: the classes \['bird'\] are not among .*\['cat', 'dog'\]"
    ):
        load_detection_data(tmp_path)


def test_synthetic_data_by_name():
    splits = load_detection_data("synthetic:10", seed=1)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 10, "validation": 2}
    assert not set(splits["train"]["image_id"]) & set(splits["validation"]["image_id"])
    assert data_fingerprint(splits) == data_fingerprint(load_detection_data("synthetic:10", seed=1))
    assert data_fingerprint(splits) != data_fingerprint(load_detection_data("synthetic:10", seed=2))


@pytest.mark.parametrize("name", ["synthetic:", "synthetic:0", "synthetic:-3", "synthetic:many", "synthetic:²"])
def test_a_malformed_synthetic_name_is_refused(name):
    with pytest.raises(DataError, match="synthetic:<number of training images>"):
        load_detection_data(name)


@pytest.mark.filterwarnings("ignore:.*zero area")
def test_the_blood_cells(bccd_folder):
    splits = load_detection_data(bccd_folder)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 205, "validation": 87}
    assert category_names(splits["train"]) == ["RBC", "WBC", "Platelets"]
    counts = {split: sum(len(o["id"]) for o in dataset["objects"]) for split, dataset in splits.items()}
    assert counts == {"train": 2804, "validation": 1137}  # as published, less one box of zero area each


def test_the_blood_cells_flaws_are_counted(bccd_folder):
    with pytest.warns(UserWarning, match="left out") as caught:
        load_detection_data(bccd_folder)
    messages = sorted(str(warning.message).rpartition("/")[2] for warning in caught)
    assert messages == [f"instances_{s}.json: left out 1 box of zero area" for s in ("train", "val")]


def test_a_broken_file_of_a_split_is_the_error_not_the_other_split(tmp_path):
    for name in ("train", "val"):
        write_coco(tmp_path / f"instances_{name}.json", tmp_path / name, many_images(2))
    (tmp_path / "instances_train.json").write_text("{broken")
    with pytest.raises(DataError, match=r"instances_train\.json: expected a COCO .* this is not json"):
        load_detection_data(tmp_path)
