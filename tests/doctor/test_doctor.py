import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_detr.cli import app
from hf_detr.data import DataError, ReadOptions, load_detection_data
from hf_detr.doctor import Diagnosis, Finding, Severity, examine

WIDTH, HEIGHT = 96, 72
TRAIN, VALIDATION = 12, 3
BOXES = ((2, 3, 30, 20), (50, 40, 40, 30), (1, 30, 20, 40), (60, 2, 30, 30))


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """A picture unlike every other one, from the first look on."""
    coarse = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


class DataFolder:
    """A flawless COCO data set, to be broken: two splits of pictures, four boxes of two classes in each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.train = self._split("train", range(1, TRAIN + 1))
        self.validation = self._split("val", range(101, 101 + VALIDATION))

    def _split(self, split: str, numbers: range) -> dict:
        (self.folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in numbers:
            picture(number).save(self.folder / split / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
            for index, box in enumerate(BOXES):
                place = {"id": 10 * number + index, "image_id": number, "category_id": 1 + 2 * (index % 2)}
                annotations.append({**place, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
        return {"images": images, "annotations": annotations, "categories": categories}

    def image(self, number: int) -> Path:
        return self.folder / ("train" if number <= TRAIN else "val") / f"{number}.jpg"

    def write(self) -> Path:
        for name, content in {"train": self.train, "val": self.validation}.items():
            (self.folder / f"instances_{name}.json").write_text(json.dumps(content))
        return self.folder

    def add_image(self, number: int, split: str = "train", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
        """Declare one more image, without objects, and return where its file belongs."""
        content = self.train if split == "train" else self.validation
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "width": size[0], "height": size[1]})
        return self.folder / split / f"{number}.jpg"

    def change_boxes(self, change: Callable[[list], list]) -> None:
        for content in (self.train, self.validation):
            for annotation in content["annotations"]:
                annotation["bbox"] = change(annotation["bbox"])


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def found(data: DataFolder) -> dict[str, Finding]:
    diagnosis = examine(data.write())
    assert diagnosis.trainable == (not any(f.severity == Severity.ERROR for f in diagnosis.findings))
    return {finding.kind: finding for finding in diagnosis.findings}


def only(data: DataFolder, kind: str, severity: Severity, *also: str) -> Finding:
    """The finding of a kind; there must be no other, but for those that follow from it."""
    findings = found(data)
    assert set(findings) == {kind, *also}
    assert findings[kind].severity == severity
    return findings[kind]


def test_a_clean_set_gives_no_finding(data: DataFolder):
    assert found(data) == {}


def test_the_synthetic_set_has_no_errors():
    diagnosis = examine("synthetic:40")
    assert diagnosis.trainable
    assert diagnosis.recommendation.image_size.value == 256
    assert [len(split.records) for split in diagnosis.splits.values()] == [40, 8]


# Images


def test_missing_images(data: DataFolder):
    data.image(3).unlink()
    [place] = only(data, "missing_image", Severity.ERROR).places
    assert (place.split, place.file, place.image_id) == ("train", str(data.image(3)), 3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: b"", "empty"),
        (lambda content: b"<html>404</html>", "no picture format"),
    ],
)
def test_unreadable_images(data: DataFolder, spoil: Callable[[bytes], bytes], words: str):
    data.image(102).write_bytes(spoil(data.image(102).read_bytes()))
    [place] = only(data, "unreadable_image", Severity.ERROR).places
    assert (place.split, place.image_id) == ("validation", 102)
    assert words in place.detail


def test_images_of_another_size_than_annotated(data: DataFolder):
    picture(2, (WIDTH // 2, HEIGHT // 2)).save(data.image(2))
    picture(5, (HEIGHT, WIDTH)).save(data.image(5))
    first, second = only(data, "image_size", Severity.ERROR).places
    assert (first.image_id, first.detail) == (2, "annotated as 96x72, displayed as 48x36")
    assert second.detail.endswith("width and height are exchanged")


def test_images_turned_by_exif(data: DataFolder):
    exif = Image.Exif()
    exif[274] = 6
    picture(1).save(data.image(1), exif=exif)
    picture(2, (HEIGHT, WIDTH)).save(data.image(2), exif=exif)
    findings = found(data)
    assert set(findings) == {"turned_image", "stored_size"}
    assert [place.image_id for place in findings["turned_image"].places] == [2]
    [place] = findings["stored_size"].places
    assert place.image_id == 1
    assert place.detail == "boxes taken as drawn on the picture as stored"  # they reach beyond the upright one


def test_images_without_objects_that_no_annotation_names_and_of_odd_shapes(data: DataFolder):
    picture(50).save(data.add_image(50))
    assert [place.image_id for place in only(data, "image_without_objects", Severity.NOTE).places] == [50]
    picture(51).save(data.folder / "train" / "left over.PNG")
    [place] = found(data)["unlisted_image"].places
    assert place.file.endswith("left over.PNG")
    picture(52, (400, 100)).save(data.add_image(52, size=(400, 100)))
    assert [place.image_id for place in found(data)["narrow_image"].places] == [52]
    picture(53, (500, 400)).save(data.add_image(53, size=(500, 400)))
    assert [place.image_id for place in found(data)["different_sizes"].places] == [1, 53]


def test_image_ids_that_repeat_or_are_not_declared(data: DataFolder):
    data.train["annotations"][0]["image_id"] = 77
    assert [place.image_id for place in only(data, "undeclared_image", Severity.ERROR).places] == [77]
    data.train["annotations"][0]["image_id"] = 1
    data.train["images"].append({**data.train["images"][0], "file_name": "2.jpg"})
    [place] = found(data)["repeated_image_id"].places
    assert (place.image_id, place.file) == (1, str(data.image(2)))


def test_copies_across_splits_the_same_and_nearly(data: DataFolder):
    same, like = data.add_image(201, "val"), data.add_image(202, "val")
    same.write_bytes(data.image(4).read_bytes())
    brighter = np.asarray(Image.open(data.image(7)), dtype=np.int64) + 4
    Image.fromarray(brighter.clip(0, 255).astype(np.uint8)).save(like, quality=60)
    first, second = only(data, "copies_across_splits", Severity.WARNING, "image_without_objects").places
    assert (first.split, first.image_id, second.image_id) == ("train", 4, 7)
    assert first.detail.startswith("the same file as validation")
    assert second.detail.startswith("looks like validation")
    assert "image id 202" in second.detail


def test_copies_within_a_split(data: DataFolder):
    for number in (60, 61):
        data.add_image(number).write_bytes(data.image(4).read_bytes())
    [place] = only(data, "copies_within_split", Severity.NOTE, "image_without_objects").places
    assert "image id 60" in place.detail
    assert "image id 61" in place.detail


# Boxes


@pytest.mark.parametrize(
    ("kind", "severity", "bbox"),
    [
        ("broken_box", Severity.ERROR, [1, 2, math.nan, 4]),
        ("broken_box", Severity.ERROR, [1, 2, 3]),
        ("broken_box", Severity.ERROR, None),
        ("negative_box", Severity.ERROR, [40, 10, -20, 10]),
        ("outside_box", Severity.ERROR, [80, 60, 40, 10]),
        ("outside_box", Severity.ERROR, [-5, 10, 20, 10]),
        ("empty_box", Severity.WARNING, [10, 10, 0, 12]),
        ("duplicate_box", Severity.WARNING, [2, 3, 30, 20.5]),
    ],
)
def test_single_boxes(data: DataFolder, kind: str, severity: Severity, bbox: list):
    data.train["annotations"][10]["bbox"] = bbox
    [place] = only(data, kind, severity).places
    assert (place.split, place.image_id, place.annotation_id) == ("train", 3, 32)


def test_what_the_doctor_calls_trainable_loads_and_the_rest_does_not(data: DataFolder):
    data.train["annotations"][5]["iscrowd"] = 7
    [place] = only(data, "refused_record", Severity.ERROR).places
    assert (place.image_id, "iscrowd" in place.detail) == (2, True)
    with pytest.raises(DataError, match="iscrowd"):
        load_detection_data(data.folder)
    data.train["annotations"][5]["iscrowd"] = 1
    assert found(data) == {}
    assert set(load_detection_data(data.folder)) == {"train", "validation"}


FORMATS = {
    "xyxy": lambda x, y, w, h: [x, y, x + w, y + h],
    "cxcywh": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    "xywhn": lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT],
    "xyxyn": lambda x, y, w, h: [x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT],
    "cxcywhn": lambda x, y, w, h: [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT],
}


@pytest.mark.parametrize("name", FORMATS)
def test_boxes_in_another_format_are_one_finding_with_the_option_that_reads_them(data: DataFolder, name: str):
    data.change_boxes(lambda box: FORMATS[name](*box))
    diagnosis = examine(data.write())
    assert {finding.kind for finding in diagnosis.findings} == {"box_format"}
    assert [len(finding.places) > 0 for finding in diagnosis.findings] == [True, True]
    assert f"of {4 * TRAIN} boxes" in diagnosis.findings[0].title
    assert f"{4 * TRAIN} fit" in diagnosis.findings[0].title
    assert diagnosis.findings[0].advice.startswith(f"--box-format {name} reads them so")
    assert f"--box-format {name} " in diagnosis.recommendation.command
    np.testing.assert_allclose(diagnosis.splits["train"].boxes.bbox[:4], BOXES, atol=1e-9)
    with pytest.raises(DataError, match=f"--box-format {name} reads them so"):
        load_detection_data(data.folder)

    options = ReadOptions(box_format=name)
    mended = examine(data.folder, options=options)
    assert mended.findings == ()
    np.testing.assert_allclose(mended.splits["train"].boxes.bbox[:4], BOXES, atol=1e-9)
    loaded = load_detection_data(data.folder, options=options)["train"][0]["objects"]["bbox"]
    np.testing.assert_allclose(loaded, BOXES, atol=1e-4)


def test_rows_first_is_recognised_and_has_no_option(data: DataFolder):
    data.change_boxes(lambda box: [box[1], box[0], box[3], box[2]])
    diagnosis = examine(data.write())
    assert {finding.kind for finding in diagnosis.findings} == {"box_format"}
    assert "seems to be (y, x, height, width):" in diagnosis.findings[0].title
    assert "exchange the numbers in the file" in diagnosis.findings[0].advice
    assert "--box-format" not in diagnosis.recommendation.command


@pytest.mark.parametrize("name", ["xywh", "cxcywh", "xyxy", "xywhn", "xyxyn"])
def test_yolo_labels_in_another_format(data: DataFolder, tmp_path: Path, name: str):
    folder = tmp_path / "yolo"
    for number in range(1, TRAIN + 1):
        (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "images" / "train" / f"{number}.png")
        lines = [" ".join(map(str, [0, *(FORMATS | {"xywh": lambda *box: box})[name](*box)])) for box in BOXES]
        (folder / "labels" / "train" / f"{number}.txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("cat\n")
    diagnosis = examine(folder)
    [finding] = {finding.advice for finding in diagnosis.findings if finding.kind == "box_format"}
    assert finding.startswith(f"--box-format {name} reads them so")
    np.testing.assert_allclose(diagnosis.splits["train"].boxes.bbox[:4], BOXES, atol=1e-9)


@pytest.mark.parametrize("clips", [False, True])
def test_what_clipping_would_change_is_counted(data: DataFolder, clips: bool):
    for index, bbox in ((0, [-5, 10, 20, 10]), (1, [90, 60, 20, 30]), (40, [-30, 2, 20, 5]), (41, [1, -2, 9, 9])):
        data.train["annotations"][index]["bbox"] = bbox
    data.validation["annotations"][0]["bbox"] = [80, 60, 40, 10]
    data.write()
    options = ReadOptions(clip_boxes=clips)
    [finding] = [found for found in examine(data.folder, options=options).findings if found.kind == "outside_box"]
    assert finding.count == 4
    assert finding.severity == (Severity.NOTE if clips else Severity.ERROR)
    assert "clip 3 boxes of 3 images and drop 1" in finding.advice
    if clips:
        with pytest.warns(UserWarning, match="clipped") as warned:
            load_detection_data(data.folder, options=options)
        counts = [str(warning.message).partition(": ")[2] for warning in warned]
        assert [text.partition(",")[0] for text in counts] == [
            "clipped 2 boxes of 2 images and dropped 1",
            "clipped 1 box of 1 image",
        ]
    else:
        with pytest.raises(DataError, match="--clip-boxes would clip 3 boxes of 3 images and drop 1"):
            load_detection_data(data.folder)


# Classes


def test_undeclared_categories(data: DataFolder):
    data.train["annotations"][6]["category_id"] = 9
    [place] = only(data, "undeclared_category", Severity.ERROR).places
    assert (place.annotation_id, place.detail) == (22, "category 9; declared are 1, 3")


def test_unused_few_and_out_of_balance_classes(data: DataFolder):
    for content in (data.train, data.validation):
        content["categories"] += [{"id": 4, "name": "animals"}, {"id": 5, "name": "fox"}]
    data.train["annotations"][0]["category_id"] = 5
    findings = found(data)
    assert set(findings) == {"unused_category", "few_objects", "class_not_evaluated"}
    assert [place.detail for place in findings["unused_category"].places] == ["class 'animals'"]
    assert [place.detail for place in findings["few_objects"].places] == ["class 'fox': 1"]
    assert [place.detail for place in findings["class_not_evaluated"].places] == ["class 'fox'"]


def test_class_imbalance(data: DataFolder):
    for index in range(10 * 2 * TRAIN + 1 - 2 * TRAIN):  # cats become ten times as many as dogs, and one more
        number = 1 + index % TRAIN
        box = [30 + index // TRAIN, 20, 18, 18 + 3 * (index // TRAIN % 9)]
        data.train["annotations"].append({"id": 5000 + index, "image_id": number, "category_id": 1, "bbox": box})
    [place] = only(data, "class_imbalance", Severity.WARNING).places
    assert place.detail == f"class 'dog': {2 * TRAIN}"


def test_splits_that_disagree_about_classes_and_names_declared_twice(data: DataFolder):
    data.validation["categories"][0]["name"] = "lion"
    [place] = only(data, "class_names", Severity.ERROR, "class_not_evaluated").places
    assert "['lion']" in place.detail
    data.validation["categories"][0]["name"] = data.train["categories"][0]["name"] = "dog"
    assert "'dog' stands for 2 categories" in found(data)["class_names"].places[0].detail


def test_no_objects_at_all(data: DataFolder):
    data.train["annotations"] = []
    assert found(data)["no_objects"].severity == Severity.ERROR


# Recommendation


def with_objects(data: DataFolder, count: int, side: float, number: int = 1) -> None:
    for index in range(count):
        box = [1.5 * index % (WIDTH - side), 3 + index // 30 * side, side, side]
        data.train["annotations"].append({"id": 9000 + index, "image_id": number, "category_id": 3, "bbox": box})


def test_tiny_objects_ask_for_larger_images(data: DataFolder):
    with_objects(data, 20, side=2)  # 2 of 72 pixels are 7 of 256
    finding = found(data)["tiny_object"]
    assert (finding.count, finding.severity) == (20, Severity.WARNING)
    assert finding.places[0].detail == "7.1 pixels"
    choice = examine(data.folder).recommendation.image_size
    assert (choice.value, "no more pixels" in choice.reason) == (256, True)


def test_larger_images_are_recommended_where_there_are_more_pixels(data: DataFolder):
    for number in range(1, TRAIN + 1):
        picture(number, (WIDTH * 8, HEIGHT * 8)).save(data.image(number))
        data.train["images"][number - 1].update(width=WIDTH * 8, height=HEIGHT * 8)
    with_objects(data, 20, side=20)  # 20 of 576 pixels are 9 of 256, and 16 of 461
    recommendation = examine(data.write()).recommendation
    assert recommendation.image_size.value == 480
    assert "--image-size 480" in recommendation.command


def test_more_objects_than_queries(data: DataFolder):
    with_objects(data, 110, side=6, number=2)
    diagnosis = examine(data.write())
    [finding] = [found for found in diagnosis.findings if found.kind == "more_objects_than_queries"]
    assert [(place.image_id, place.detail) for place in finding.places] == [(2, "114 objects")]
    assert diagnosis.recommendation.queries.value == 200  # 171, and the next multiple of 50
    assert "--set num_queries=200" in diagnosis.recommendation.command


def test_the_recommended_command_is_one_that_train_takes(data: DataFolder, monkeypatch: pytest.MonkeyPatch):
    with_objects(data, 110, side=6, number=2)
    data.change_boxes(lambda box: FORMATS["xyxy"](*box))
    options = []
    monkeypatch.setattr("hf_detr.training.run.run_training", lambda run, *args, **kwargs: options.append(run) or {})
    monkeypatch.setattr("hf_detr.cli.print_metrics", lambda result: None)
    recommendation = examine(data.write()).recommendation
    result = CliRunner().invoke(app, recommendation.command.split()[1:])
    assert result.exit_code == 0, result.output
    [run] = options
    assert (run.config_overrides, run.preset) == ({"num_queries": 200}, "tiny")
    assert run.image_size == recommendation.image_size.value
    assert run.box_format == "xyxy"
    assert (run.epochs, run.batch_size) == (recommendation.epochs.value, recommendation.batch_size.value)


# The command and its report


def run_doctor(data: DataFolder | str, output: Path) -> tuple[int, str]:
    folder = data if isinstance(data, str) else str(data.write())
    result = CliRunner().invoke(app, ["doctor", "--data", folder, "--output", str(output)])
    return result.exit_code, result.output


def test_the_command_writes_a_report(data: DataFolder, tmp_path: Path):
    output = tmp_path / "report"
    data.train["annotations"][4]["bbox"] = [10, 10, 0, 12]
    code, text = run_doctor(data, output)
    assert code == 0, text
    assert "WARNING boxes have no area" in text
    assert "hf-detr train --data" in text
    assert sorted(path.name for path in output.iterdir()) == [
        "classes.png",
        "report.json",
        "report.md",
        "samples.jpg",
        "sizes.png",
    ]
    report = json.loads((output / "report.json").read_text())
    assert report["trainable"] is True
    assert report["splits"]["train"]["images"] == TRAIN
    assert [(finding["kind"], finding["count"]) for finding in report["findings"]] == [("empty_box", 1)]
    assert report["findings"][0]["places"][0]["annotation_id"] == 20
    assert "(samples.jpg)" in (output / "report.md").read_text()
    with Image.open(output / "samples.jpg") as sheet:
        assert sheet.size[0] > sheet.size[1] > 300


def test_the_command_takes_boxes_as_it_is_told(data: DataFolder, tmp_path: Path):
    data.change_boxes(lambda box: FORMATS["cxcywh"](box[0] + 60, *box[1:]))  # some reach beyond the right edge
    command = ["doctor", "--data", str(data.write()), "--output", str(tmp_path / "report"), "--box-format", "cxcywh"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "--clip-boxes would clip" in refused.output
    result = CliRunner().invoke(app, [*command, "--clip-boxes"])
    assert result.exit_code == 0, result.output
    assert "--box-format cxcywh --clip-boxes" in result.output
    unknown = CliRunner().invoke(app, [*command[:-1], "yolo"])
    assert unknown.exit_code == 2
    assert "--box-format: expected xywh (left, top, width, height)" in unknown.output


def test_errors_come_first_and_exit_with_one(data: DataFolder, tmp_path: Path):
    data.train["annotations"][4]["bbox"] = [10, 10, 0, 12]
    for index in range(40, 46):
        data.train["annotations"][index]["bbox"] = [80, 60, 10 * index - 370, 10]
    data.image(1).unlink()
    code, text = run_doctor(data, tmp_path / "report")
    assert code == 1
    assert "Not ready to train on: 2 errors, 1 warning" in text
    assert text.index("ERROR image files are missing") < text.index("ERROR boxes reach") < text.index("WARNING")
    assert "and 3 more" in text


def test_images_that_are_left_out_are_warnings(data: DataFolder, tmp_path: Path):
    data.image(1).unlink()
    data.image(2).write_text("no picture")
    data.train["annotations"][8]["bbox"] = [80, 60, 40, 10]  # of image 3
    data.train["annotations"][9]["bbox"] = [80, 60, 50, 10]
    for image in data.train["images"][3:5]:
        image["width"] = 10
    data.train["images"].append({**data.train["images"][5], "file_name": "7.jpg"})
    folder, options = data.write(), ReadOptions(skip_unusable=True)
    assert not examine(folder).trainable
    diagnosis = examine(folder, options=options)
    assert diagnosis.trainable
    counts = {"missing_image": 1, "unreadable_image": 1, "outside_box": 1, "image_size": 2, "repeated_image_id": 1}
    said = {finding.kind: finding.title for finding in diagnosis.findings if finding.severity == Severity.WARNING}
    assert set(said) == set(counts)
    for kind, count in counts.items():
        assert said[kind].endswith(f"; --skip-unusable leaves {count} image{'s' * (count > 1)} out")
    with pytest.warns(UserWarning, match=f"left out {sum(counts.values())} images"):
        load_detection_data(folder, options=options)
    command = ["doctor", "--data", str(folder), "--output", str(tmp_path / "report"), "--skip-unusable"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert CliRunner().invoke(app, command[:-1]).exit_code == 1


def test_what_leaving_out_does_not_mend_stays_an_error(data: DataFolder):
    data.image(1).write_bytes(data.image(1).read_bytes()[:-500])  # loading reads headers, training would stop here
    for number in range(101, 101 + VALIDATION):
        data.image(number).unlink()
    diagnosis = examine(data.write(), options=ReadOptions(skip_unusable=True))
    errors = {finding.kind: finding.places for finding in diagnosis.findings if finding.severity == Severity.ERROR}
    assert [place.image_id for place in errors.pop("unreadable_image")] == [1]
    assert [place.split for place in errors.pop("empty_split")] == ["validation"]
    assert not errors


def test_a_set_of_which_nothing_can_be_shown(data: DataFolder, tmp_path: Path):
    for number in range(1, TRAIN + 1):
        data.image(number).unlink()
    code, _ = run_doctor(data, tmp_path / "report")
    assert code == 1
    assert not (tmp_path / "report" / "samples.jpg").exists()
    data.train["images"] = data.train["annotations"] = []
    assert "empty_split" in found(data)


def test_usage_errors_exit_with_two(data: DataFolder, tmp_path: Path):
    assert run_doctor(str(tmp_path / "nowhere"), tmp_path / "report")[0] == 2
    code, text = run_doctor(data, data.folder / "report")
    assert (code, "taken for data" in text) == (2, True)
    (tmp_path / "file").write_text("")
    assert run_doctor(data, tmp_path / "file")[0] == 2
    assert (tmp_path / "file").read_text() == ""
    for split in ("train", "val"):
        (data.folder / f"instances_{split}.json").write_text("{")
    result = CliRunner().invoke(app, ["doctor", "--data", str(data.folder), "--output", str(tmp_path / "report")])
    assert result.exit_code == 2
    assert str(data.folder) in result.output


def test_the_order_of_findings_is_always_the_same(data: DataFolder):
    data.train["annotations"][4]["bbox"] = [10, 10, 0, 12]
    data.image(3).unlink()
    data.image(9).write_bytes(b"")
    data.write()

    def texts(diagnosis: Diagnosis) -> list[str]:
        return [str(place) for finding in diagnosis.findings for place in finding.places]

    assert texts(examine(data.folder)) == texts(examine(data.folder))


def test_blood_cells(bccd_folder: Path):
    diagnosis = examine(bccd_folder)
    assert diagnosis.trainable
    findings = {finding.kind: finding for finding in diagnosis.findings}
    assert {place.annotation_id for place in findings["empty_box"].places} == {2288, 887}
    [leak] = findings["copies_across_splits"].places  # one field of view, in and out of focus
    assert leak.file.endswith("BloodImage_00038.jpg")
    assert "BloodImage_00037.jpg" in leak.detail
