"""predictions.json with the ids of the data set, and what COCO's own evaluation makes of it."""

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset
from PIL import Image
from rich.console import Console

from hf_detr.data import read_coco, undecoded
from hf_detr.evaluation.coco_metrics.coco_metrics import SUMMARY_NAMES
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.prediction import PredictionOptions, PredictionSummary, load_detector, run_prediction
from hf_detr.prediction.data_ids import ids_of_file, ids_of_model
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments


def predict(model: Path, output: Path, *sources: Path | str, **options: Any) -> PredictionSummary:
    given = {"threshold": 0.0, "formats": ("coco",), "workers": 0, **options}
    names = tuple(str(source) for source in sources)
    return run_prediction(
        PredictionOptions(sources=names, model=str(model), output=output, **given), Console(quiet=True)
    )


def results(output: Path) -> list[dict]:
    return json.loads((output / "predictions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of one size."""
    folder = tmp_path_factory.mktemp("coco") / "val"
    folder.mkdir()
    for index, picture in enumerate(pictures[:12]):
        picture.resize((96, 80)).save(folder / f"p{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def names(model_folder: Path) -> list[str]:
    return list(HfDetrConfig.from_pretrained(model_folder).id2label.values())


def coco_content(names: list[str], pictures: int = 12) -> dict[str, list]:
    """The images p00.png, … with the ids 500, 507, …, and the classes with the ids 10, 20, … in reversed order."""
    return {
        "images": [
            {"id": 500 + 7 * index, "file_name": f"p{index:02d}.png", "width": 96, "height": 80}
            for index in range(pictures)
        ],
        "categories": [{"id": 10 * number, "name": name} for number, name in enumerate(reversed(names), start=1)],
        "annotations": [],
    }


def write(content: dict[str, list], path: Path) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def annotation_file(
    folder: Path, names: list[str], model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the model itself finds, moved a little, so that it is right more or less often."""
    content = coco_content(names)
    file = write(content, folder.parent / "instances_val.json")
    output = tmp_path_factory.mktemp("found")
    predict(model_folder, output, folder, annotations=file)
    draw = random.Random(0)
    for row in results(output):
        x, y, width, height = row["bbox"]
        box = [x + draw.uniform(0, 4), y + draw.uniform(0, 4), width - 4, height - 4]
        if draw.random() < 0.3 and min(box) > 1 and box[0] + box[2] <= 96 and box[1] + box[3] <= 80:
            place = {"image_id": row["image_id"], "category_id": row["category_id"], "iscrowd": 0}
            number = len(content["annotations"]) + 1
            content["annotations"].append({"id": number, "bbox": box, "area": box[2] * box[3], **place})
    return write(content, file)


def test_coco_evaluation_of_the_users_file_gives_our_metrics(
    folder: Path, annotation_file: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    summary = predict(model_folder, tmp_path / "output", folder, annotations=annotation_file)
    assert summary.remarks == []
    truth = COCO(str(annotation_file))
    theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "output" / "predictions.json")), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()

    detector, image_processor = load_detector(str(model_folder))
    args = HfDetrTrainingArguments(str(tmp_path / "run"), per_device_eval_batch_size=8, use_cpu=True)
    trainer = HfDetrTrainer(detector, args, processing_class=image_processor)
    ours = trainer.evaluate_by_class(undecoded(read_coco(annotation_file, folder)))
    assert 0.05 < ours["AP"] < 0.95
    assert [ours[name] for name in SUMMARY_NAMES] == pytest.approx(list(theirs.stats), abs=1e-6)


def test_without_an_annotation_file_the_categories_are_those_of_the_training_data(
    folder: Path, names: list[str], model_folder: Path, tmp_path: Path
):
    model = HfDetrForObjectDetection.from_pretrained(model_folder)
    model.config.category_ids = {name: 7 * number for number, name in enumerate(names, start=1)}
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_bytes(
        (model_folder / "preprocessor_config.json").read_bytes()
    )
    predict(tmp_path / "model", tmp_path / "output", folder)
    rows = results(tmp_path / "output")
    assert {row["image_id"] for row in rows} == set(range(1, 13))
    assert all(row["category_id"] == model.config.category_ids[row["category_name"]] for row in rows)


def test_what_the_annotation_file_does_not_know_is_left_out_and_named(
    folder: Path, names: list[str], model_folder: Path, tmp_path: Path
):
    predict(model_folder, tmp_path / "all", folder)
    *known, unknown = dict.fromkeys(row["category_name"] for row in results(tmp_path / "all"))
    content = coco_content(names, pictures=10)
    content["images"].append({"id": "far", "file_name": "elsewhere.png"})
    content["categories"] = [entry for entry in content["categories"] if entry["name"] in known]
    del content["annotations"]  # as in files of test images
    file = write(content, tmp_path / "test.json")
    summary = predict(model_folder, tmp_path / "output", folder, annotations=file)
    rows = results(tmp_path / "output")
    assert {row["image_id"] for row in rows} <= {500 + 7 * index for index in range(10)}
    assert {row["category_name"] for row in rows} == set(known)
    pictures, classes, images = summary.remarks
    assert f"{file} has no entry for 2 of the pictures" in pictures
    assert pictures.endswith(f"{folder / 'p10.png'}, {folder / 'p11.png'}")
    assert f"{file} does not declare the classes" in classes
    assert repr(unknown) in classes
    assert f"1 images of {file} are not among the pictures" in images
    again = predict(model_folder, tmp_path / "output", folder, annotations=file)
    assert again == summary
    with pytest.raises(ValueError, match=r"annotations was .* and is None"):
        predict(model_folder, tmp_path / "output", folder)


def test_ids_may_be_texts_and_pictures_in_folders(tmp_path: Path):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    content = {
        "images": [{"id": "x", "file_name": "b/1.jpg"}, {"id": "y", "file_name": "D:\\work\\a\\1.jpg"}],
        "categories": [{"id": "c-1", "name": "cat"}],
    }
    ids = ids_of_file(write(content, tmp_path / "file.json"), ["dog", "cat"], [tmp_path], keeps_image_ids=False)
    assert [ids.image_id(str(tmp_path / name), 0) for name in ("a/1.jpg", "b/1.jpg")] == ["y", "x"]
    assert [ids.category_id(label, "") for label in (0, 1)] == [None, "c-1"]


def test_rows_of_a_table_are_found_by_name_or_id(model_folder: Path, folder: Path, names: list[str], tmp_path: Path):
    file = write(coco_content(names, pictures=2), tmp_path / "file.json")
    content = [(folder / f"p{index:02d}.png").read_bytes() for index in range(2)]
    by_name = [{"bytes": item, "path": f"p{index:02d}.png"} for index, item in enumerate(content)]
    by_id = {"image": [{"bytes": item, "path": None} for item in content], "image_id": [500, 507]}
    for columns in ({"image": by_name}, by_id):
        shard = tmp_path / f"{len(columns)}"
        Dataset.from_dict(columns).cast_column("image", datasets.Image()).save_to_disk(shard)
        summary = predict(model_folder, tmp_path / f"output-{len(columns)}", shard, annotations=file)
        assert summary.remarks == []
        assert {row["image_id"] for row in results(tmp_path / f"output-{len(columns)}")} == {500, 507}


def test_of_two_categories_of_one_name_the_one_with_objects_counts(tmp_path: Path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 0, "name": "fish"}, {"id": 1, "name": "fish"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
    }
    file = write(content, tmp_path / "file.json")
    assert ids_of_file(file, ["fish"], [tmp_path], keeps_image_ids=False).categories == [1]
    del content["annotations"]
    with pytest.raises(ValueError, match=r"field 'categories': the name 'fish' appears more than once.*\[0, 1\]"):
        ids_of_file(write(content, file), ["fish"], [tmp_path], keeps_image_ids=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"categories": [{"id": 1, "name": "bird"}]}, "expected classes of the model, .'cat'., found .'bird'"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "image id 1: this image id appears"),
        ({"images": [{"file_name": "a"}]}, "field 'id': expected a number or a text, got None"),
        ({"images": {}}, "field 'images': expected a COCO json"),
    ],
)
def test_files_without_usable_ids_are_refused(change: dict, said: str, tmp_path: Path):
    content = {"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "cat"}]} | change
    file = write(content, tmp_path / "file.json")
    with pytest.raises(ValueError, match=f"file.json.*{said}"):
        ids_of_file(file, ["cat"], [tmp_path], keeps_image_ids=False)


def test_category_ids_that_lack_a_class_are_not_used():
    ids = ids_of_model(["cat", "dog"], {"cat": 5})
    assert list(ids.categories) == [0, 1]
    [remark] = ids.remarks()
    assert "['dog'] are missing" in remark
    assert ids_of_model(["cat", "dog"], {"dog": 5, "cat": 2, "cow": 1}).categories == [2, 5]


def test_annotations_need_predictions_json(tmp_path: Path):
    with pytest.raises(ValueError, match="add the format 'coco'"):
        predict(tmp_path, tmp_path, tmp_path, annotations=tmp_path / "a.json", formats=("parquet",))
