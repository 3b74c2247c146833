"""The command line from data folder to pictures, and its errors."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from hf_detr import __version__
from hf_detr.cli import app
from hf_detr.data import category_names, make_synthetic_dataset
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor

SHORT_TRAINING = ["--preset", "tiny", "--epochs", "1", "--batch-size", "3", "--image-size", "128"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(result: Result, *expected: str) -> None:
    """One line on what is wrong, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for text in expected:
        assert text in lines[0]


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures, larger than the model sees them and not square, as COCO lays out its files."""
    folder = tmp_path_factory.mktemp("coco")
    for split, count, first_id in (("train", 6, 0), ("val", 3, 100)):
        data = make_synthetic_dataset(count, (160, 120), max_objects=4, first_image_id=first_id)
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": n} for i, n in enumerate(category_names(data), start=1)],
        }
        (folder / split).mkdir()
        for row in data:
            name = f"{row['image_id']}.png"
            row["image"].save(folder / split / name)
            content["images"].append({"id": row["image_id"], "file_name": name, "width": 160, "height": 120})
            columns = (row["objects"][name] for name in ("bbox", "category", "area"))
            for box, category, area in zip(*columns, strict=True):
                annotation = {"id": len(content["annotations"]) + 1, "image_id": row["image_id"], "bbox": box}
                content["annotations"].append({**annotation, "category_id": category + 1, "area": area, "iscrowd": 0})
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def trained(coco_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    result = run("train", "--data", coco_folder, "--output", output, *SHORT_TRAINING)
    assert result.exit_code == 0, result.output
    assert "AP50" in result.stdout
    return output


def test_training_leaves_a_complete_model_folder(trained: Path, coco_folder: Path):
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "pictures",
        "preprocessor_config.json",
        "results.csv",
        "results.png",
    ]
    assert json.loads((trained / "config.json").read_text())["id2label"]["0"] == "ball"
    with (trained / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2"]
    assert float(rows[0]["loss"]) > 0
    assert float(rows[0]["loss_giou"]) > 0
    assert 0 <= float(rows[0]["eval_AP"]) <= 1
    newest, kept = (
        sorted(path.name for path in (trained / "pictures" / name).glob("*.jpg")) for name in ("", "step-000002")
    )
    assert newest == kept == ["100.jpg", "101.jpg", "102.jpg"]
    pictures = sorted((trained / "pictures").glob("*.jpg"))
    with Image.open(pictures[0]) as picture:
        assert picture.width > 2 * 160
    with Image.open(trained / "results.png") as plot:
        assert plot.width > plot.height
    card = (trained / "README.md").read_text()
    for text in ("tiny", coco_folder.name, "pictures/100.jpg", "learning rate", "AP50"):
        assert text in card


def test_evaluation_repeats_the_metrics_of_training(trained: Path, coco_folder: Path):
    result = run("eval", "--model", trained, "--data", coco_folder)
    assert result.exit_code == 0, result.output
    with (trained / "results.csv").open(newline="") as file:
        expected = float(list(csv.DictReader(file))[-1]["eval_AR_100"])
    line = next(line for line in result.stdout.splitlines() if "AR_100" in line)
    assert f"{expected:.3f}" in line


def test_predictions_are_in_pixels_of_each_image(trained: Path, coco_folder: Path, tmp_path: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with Image.open(coco_folder / "val" / "100.png") as image:
        image.resize((300, 100)).save(pictures / "wide.png")
        image.resize((90, 200)).save(pictures / "tall.jpg")
    (pictures / "notes.txt").write_text("not an image")
    single = coco_folder / "val" / "101.png"
    output = tmp_path / "output"
    result = run("predict", pictures, single, "--model", trained, "--output", output, "--threshold", "0")
    assert result.exit_code == 0, result.output

    files = [pictures / "tall.jpg", pictures / "wide.png", single]
    predictions = json.loads((output / "predictions.json").read_text())
    assert {(row["image_id"], row["file_name"]) for row in predictions} == set(enumerate(map(str, files), start=1))
    model = HfDetrForObjectDetection.from_pretrained(trained).eval()
    image_processor = HfDetrImageProcessor.from_pretrained(trained)
    for image_id, file in enumerate(files, start=1):
        with Image.open(file) as image:
            found = [row for row in predictions if row["image_id"] == image_id]
            with torch.no_grad():
                outputs = model(**image_processor(image, return_tensors="pt"))
            scores = outputs.logits[0].sigmoid()
            query, label = divmod(scores.argmax().item(), scores.shape[-1])
            centre_x, centre_y, width, height = outputs.pred_boxes[0, query].tolist()
            left, right = (min(max(x, 0), 1) * image.width for x in (centre_x - width / 2, centre_x + width / 2))
            top, bottom = (min(max(y, 0), 1) * image.height for y in (centre_y - height / 2, centre_y + height / 2))
        best = max(found, key=lambda row: row["score"])
        assert best["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.5)
        name = model.config.id2label[label]
        # the ids of the file that the model was trained on
        assert (best["category_id"], best["category_name"]) == (model.config.category_ids[name], name)
        assert best["score"] == pytest.approx(scores.max().item(), abs=1e-3)
        drawn = next(path for path in output.iterdir() if path.name.startswith(f"{image_id:04d}"))
        with Image.open(drawn) as picture, Image.open(file) as original:
            assert picture.size == original.size


def test_fine_tuning_starts_from_the_model(trained: Path, coco_folder: Path, tmp_path: Path):
    output = tmp_path / "fine-tuned"
    result = run(
        "train", "--data", coco_folder, "--output", output, "--model", trained, *SHORT_TRAINING[2:],
        "--learning-rate", "1e-9",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = (HfDetrForObjectDetection.from_pretrained(folder) for folder in (trained, output))
    for name, value in before.named_parameters():
        torch.testing.assert_close(after.get_parameter(name), value, atol=1e-6, rtol=0)


def test_a_model_is_not_overwritten_unasked(trained: Path, coco_folder: Path):
    arguments = ("train", "--data", coco_folder, "--output", trained, *SHORT_TRAINING)
    before = (trained / "model.safetensors").read_bytes()
    assert_refused(run(*arguments), str(trained), "already holds a model", "--overwrite")
    assert_refused(run(*arguments, "--resume"), str(trained), "no unfinished run to resume")
    assert (trained / "model.safetensors").read_bytes() == before
    overwritten = run(*arguments, "--overwrite", "--seed", "1")
    assert overwritten.exit_code == 0, overwritten.output
    assert (trained / "model.safetensors").read_bytes() != before


def test_an_interrupted_run_resumes(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from hf_detr.training import run as training_run

    output = tmp_path / "model"
    arguments = ("train", "--data", coco_folder, "--output", output, *SHORT_TRAINING)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "save_model", interrupt)
        interrupted = run(*arguments)
        assert interrupted.exit_code == 130
        assert interrupted.stderr.endswith(
            "hf-detr: interrupted; go on with the run by adding --resume to its command\n"
        )
    assert not (output / "config.json").exists()
    assert_refused(run(*arguments), "already holds an unfinished run", "--overwrite", "--resume")
    resumed = run(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert (output / "config.json").exists()
    assert not (output / "checkpoints").exists()


def test_wrong_options_are_named(coco_folder: Path, trained: Path, tmp_path: Path):
    output = tmp_path / "model"
    train = ("train", "--output", output)
    assert_refused(run(*train, "--data", coco_folder, "--preset", "detr-resnet50"), "detr-resnet50", "detr-resnet-50")
    assert_refused(run(*train, "--data", tmp_path / "nothing"), str(tmp_path / "nothing"))
    assert_refused(run(*train, "--data", coco_folder, "--learning-rate", "-1"), "learning_rate", "-1")
    assert_refused(run("eval", "--model", trained, "--data", coco_folder, "--split", "test"), "no split 'test'")
    both = run(*train, "--data", coco_folder, "--model", trained, "--preset", "tiny")
    assert_refused(both, "--model and --preset contradict each other")
    predict = ("predict", coco_folder / "val", "--model")
    for missing in ("./nofolder", "nofolder", str(tmp_path / "nofolder")):
        assert_refused(run(*predict, missing, "--output", output), f"{missing}: no such folder")
    assert_refused(run(*predict, trained, "--output", trained), f"{trained} holds a model")
    assert_refused(run(*predict, trained, "--output", output, "--format", "jpg"), "--format: expected some of")
    assert not output.exists()
    a_file = tmp_path / "file"
    a_file.write_text("")
    assert_refused(run("train", "--output", a_file, "--data", coco_folder), str(a_file), "is a file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--preset", "tinny"], "tinny"),
        (["--set", "num_querys=3"], "num_querys"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--model", "./nofolder"], "./nofolder: no such folder"),
    ],
)
def test_options_are_checked_before_the_data_are_read(options: list[str], expected: str, tmp_path: Path):
    result = run("train", "--data", tmp_path / "no data", "--output", tmp_path / "model", *options)
    assert_refused(result, expected)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", "the training split has no object to learn from: check that annotations and images belong together"),
        ("val", "the validation split has no object to measure on"),
    ],
)
def test_a_split_without_objects_is_refused_before_training(
    split: str, expected: str, coco_folder: Path, tmp_path: Path
):
    data = shutil.copytree(coco_folder, tmp_path / "data")
    file = data / f"instances_{split}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    assert_refused(run("train", "--data", data, "--output", tmp_path / "model", *SHORT_TRAINING), str(data), expected)
    assert not (tmp_path / "model").exists()


def test_the_version_is_told():
    assert run("--version").stdout == f"hf-detr {__version__}\n"


def test_images_that_cannot_be_read_are_named(trained: Path, coco_folder: Path, tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    output = tmp_path / "output"
    options = ("--model", trained, "--output", output)
    assert_refused(run("predict", tmp_path / "missing.jpg", *options), "missing.jpg", "no such file")
    assert_refused(run("predict", empty, *options), str(empty), "no image in this folder")
    assert not output.exists()
    result = run("predict", coco_folder / "val" / "100.png", broken, *options)
    assert result.exit_code == 1
    assert "detections on 1 images" in result.stdout
    assert str(broken) in result.stderr
    assert [row["file_name"] for row in json.loads((output / "failed.json").read_text())] == [str(broken)]


def test_a_picture_that_pillow_refuses_for_its_size_is_named(
    trained: Path, coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 9000)  # pictures have 19200 pixels, more than twice as many
    expected = (".png", "160x120 pixels are more than the 18,000 that Pillow opens", "make the picture smaller")
    assert_refused(run("train", "--data", coco_folder, "--output", tmp_path / "new"), *expected)
    assert_refused(run("eval", "--model", trained, "--data", coco_folder), *expected)
    [path, *_] = sorted((coco_folder / "val").iterdir())
    result = run("predict", path, "--model", trained, "--output", tmp_path / "found")
    [line, *_] = [line for line in result.stderr.splitlines() if "hf-detr: " in line]
    assert all(text in line for text in (path.name, *expected))


def test_a_picture_that_pillow_warns_of_is_used_and_named(
    trained: Path, coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10_000)
    [path, *_] = sorted((coco_folder / "val").iterdir())
    result = run("predict", path, "--model", trained, "--output", tmp_path / "found")
    assert result.exit_code == 0, result.output
    warned = [line for line in result.stderr.splitlines() if "arning" in line]
    assert warned == [
        f"hf-detr: warning: {path}: 160x120 pixels take 0 MB of memory whenever this picture is read; "
        "make it smaller or cut it into tiles"
    ]


def test_a_folder_without_a_model_is_refused(coco_folder: Path, tmp_path: Path):
    result = run("predict", coco_folder / "val", "--model", tmp_path, "--output", tmp_path / "output")
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr


def test_the_demo_ends_with_metrics_and_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_detr.demo.DATA", "synthetic:8")
    monkeypatch.setattr("hf_detr.demo.TIMED_SECONDS", 0.0)
    monkeypatch.setattr("hf_detr.demo.LEAST_STEPS", 2)
    monkeypatch.setattr("hf_detr.demo.PICTURES_SECONDS", 60.0)  # nothing is left of the minute but the least steps
    for _ in range(2):  # a second demo replaces the first
        result = run("demo", "--minutes", "1")
        assert result.exit_code == 0, result.output
        assert re.search(r"A step takes \d+\.\d\d s: 2 steps and their evaluations take about", result.stdout)
    assert "AP50" in result.stdout
    for path in ("README.md", "results.csv", "results.png", "pictures/pipeline.png", "model.safetensors"):
        assert (tmp_path / "demo-output" / path).stat().st_size > 0
    assert "demo-output/pictures/pipeline.png" in result.stdout


def test_presets_are_listed():
    result = run("presets")
    assert result.exit_code == 0
    for name in ("tiny", "detr-resnet-50-dc5", "dino-resnet-50-4scale"):
        assert name in result.stdout


def test_the_module_itself_imports_nothing_heavy():
    """Asking for help must wait for nothing but the package itself."""
    program = (
        "import sys, hf_detr; before = set(sys.modules); import hf_detr.cli; "
        "heavy = {'datasets', 'matplotlib', 'scipy', 'torchvision', 'transformers.modeling_utils'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_data_is_all_that_training_must_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_detr.training.run.run_training", lambda options: started.append(options) or {})
    monkeypatch.setattr("hf_detr.cli.print_metrics", lambda result: None)
    assert run("train", "--data", "synthetic").exit_code == 0
    assert [(options.data, options.output) for options in started] == [("synthetic", Path("my-detector"))]
