"""The command line on two ranks that `torchrun` starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from hf_detr.cli import app
from hf_detr.data import category_names, make_synthetic_dataset
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.prediction import PredictionOptions, detect, run_prediction
from hf_detr.processing.image_processing import HfDetrImageProcessor

PICTURES = 20
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
COMMAND_LINE = ("-m", "hf_detr.cli")
KILLED_COMMAND_LINE = """
import os, signal

from hf_detr.cli import app
from hf_detr.prediction.output import OutputFolder

write_part, written = OutputFolder.write_part, []


def write_and_die(*arguments):
    write_part(*arguments)
    written.append(arguments)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)


OutputFolder.write_part = write_and_die
app()
"""


def run(*arguments: object, program: tuple[str, ...] = COMMAND_LINE) -> tuple[int, str, str]:
    done = subprocess.run(
        [*TORCHRUN, *program, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    names = category_names(make_synthetic_dataset(1, 64))
    config = HfDetrConfig(backbone="test_resnet", **small, num_queries=10, id2label=dict(enumerate(names)))
    HfDetrForObjectDetection(config).save_pretrained(folder)
    HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def test_prediction_survives_a_kill_and_does_not_depend_on_ranks(model_folder: Path, tmp_path: Path):
    folder, output, parts = tmp_path / "pictures", tmp_path / "output", tmp_path / "output" / "parts"
    folder.mkdir()
    for index in range(PICTURES):
        noise = torch.randint(0, 256, (48, 64 + 16 * (index % 3), 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{index:02d}.png")
    command = ("predict", folder, "--model", model_folder, "--output", output, "--format", "coco,parquet",
               "--threshold", "0.1", "--chunk-size", "1")  # fmt: skip
    killed = tmp_path / "killed.py"
    killed.write_text(KILLED_COMMAND_LINE)
    code, _, stderr = run(*command, program=(str(killed),))
    assert code != 0
    assert "SIGKILL" in stderr
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("stream-*")}
    assert 3 <= len(before) <= 6
    assert not (output / "predictions.json").exists()

    code, stdout, stderr = run(*command)
    assert code == 0, stderr
    assert stdout.count(f"detections on {PICTURES} images") == 1
    after = {path.name: path.stat().st_mtime_ns for path in parts.glob("stream-*")}
    assert len(after) == PICTURES
    assert {name: after[name] for name in before} == before

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = PredictionOptions(
        sources=(str(folder),), model=str(model_folder), output=tmp_path / "alone", formats=("coco",), threshold=0.1,
        chunk_size=1,
    )  # fmt: skip
    assert run_prediction(alone, Console(quiet=True)).images == PICTURES
    torch.set_num_threads(threads)
    assert (tmp_path / "alone" / "predictions.json").read_bytes() == (output / "predictions.json").read_bytes()
    assert len(json.loads((output / "predictions.json").read_bytes())) > PICTURES


def write_found_objects(model_folder: Path, folder: Path) -> None:
    """Write seven pictures whose objects are what the model finds, cut smaller: metrics are then neither 0 nor 1."""
    model = HfDetrForObjectDetection.from_pretrained(model_folder).eval()
    processor = HfDetrImageProcessor.from_pretrained(model_folder)
    categories = [{"id": label, "name": name} for label, name in model.config.id2label.items()]
    for split, first, count in (("train", 0, 1), ("val", 1, 7)):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for row in make_synthetic_dataset(count, (96, 64), first_image_id=first):
            image_id, picture = row["image_id"], row["image"]
            picture.save(folder / split / f"{image_id}.png")
            images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 96, "height": 64})
            [found] = detect(model, processor, [picture], 0.0)
            for box, label in zip(found["boxes"][:3].tolist(), found["labels"].tolist(), strict=False):
                left, top, right, bottom = box
                share = 1 - 0.05 * (image_id % 4)
                size = [(right - left) * share, (bottom - top) * share]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "bbox": [left, top, *size],
                     "category_id": label, "area": size[0] * size[1], "iscrowd": 0}
                )  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(content))


def test_evaluation_equals_that_of_one_process(model_folder: Path, tmp_path: Path):
    """Seven images on two ranks in batches of two: the last ones are uneven."""
    write_found_objects(model_folder, tmp_path / "data")
    command = ("eval", "--model", model_folder, "--data", tmp_path / "data", "--batch-size", "2", "--output")
    alone = CliRunner().invoke(app, [*map(str, command), str(tmp_path / "alone.json")])
    assert alone.exit_code == 0, alone.output
    one = json.loads((tmp_path / "alone.json").read_text())
    assert 0 < one["AP"] < 1
    code, stdout, stderr = run(*command, tmp_path / "two.json")
    assert code == 0, stderr
    assert stdout.count("AR_100") == alone.stdout.count("AR_100")
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["per_class"] == {name: pytest.approx(row, abs=1e-6) for name, row in one["per_class"].items()}
    names = [name for name in one if name.startswith("A")]
    assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names}, abs=1e-6)


def test_training_on_a_stream_writes_once_and_errors_are_said_once(model_folder: Path, tmp_path: Path):
    output = tmp_path / "trained"
    command = ("train", "--data", "synthetic:10", "--model", model_folder, "--output", output, "--streaming",
               "--steps", "2", "--batch-size", "2")  # fmt: skip
    code, stdout, stderr = run(*command)
    assert code == 0, stderr
    assert stdout.count("model card") == 1
    assert (output / "config.json").exists()
    assert not (output / "checkpoints").exists()
    code, stdout, stderr = run(*command)
    assert code != 0
    assert stderr.count(f"{output} already holds a model; add --overwrite") == 1


@pytest.mark.parametrize("preset", ["detr-resnet-50", "deformable-detr-resnet-50", "dino-resnet-50-4scale"])
def test_the_units_that_fsdp_cuts_exist_in_the_models(preset: str):
    with torch.device("meta"):
        model = HfDetrForObjectDetection(HfDetrConfig.from_preset(preset, use_pretrained_backbone=False))
    units = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert {type(module).__name__ for module in units} == set(model._no_split_modules)
    inside = {id(value) for unit in units for value in unit.parameters()}
    total = sum(value.numel() for value in model.parameters())
    assert sum(value.numel() for value in model.parameters() if id(value) in inside) > 0.9 * total
