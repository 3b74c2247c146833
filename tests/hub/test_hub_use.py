"""Fresh processes that know a Hub only by HF_ENDPOINT and HF_TOKEN: they push to it, and load from it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import WRITER, HubServer
from huggingface_hub import HfApi, ModelCard, constants
from PIL import Image
from safetensors.torch import load

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor
from hf_detr.data import category_names, make_synthetic_dataset
from hf_detr.hub.options import PushOptions
from hf_detr.hub.push import push_folder

TRAINED, TUNED, BY_PARTS, BY_TRAINER = (f"someone/{name}" for name in ("trained", "tuned", "by-parts", "by-trainer"))

WITH_THE_PACKAGE = """
import sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline
from typer.testing import CliRunner
import hf_detr
from hf_detr.cli import app
from hf_detr.data import load_detection_data, undecoded
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

start, picture = sys.argv[1:]

def command(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout

short = ("--data", "synthetic:6", "--epochs", "1", "--batch-size", "3", "--image-size", "128")
said = command("train", "--model", start, "--output", "out", *short, "--push-to-hub", "someone/trained", "--private")
assert "/someone/trained/commit/" in said, said

model = AutoModelForObjectDetection.from_pretrained("someone/trained")
processor = AutoImageProcessor.from_pretrained("someone/trained")
assert type(model) is hf_detr.HfDetrForObjectDetection
assert type(processor) is hf_detr.HfDetrImageProcessor
local = hf_detr.HfDetrForObjectDetection.from_pretrained("out")
inputs = processor(Image.open(picture), return_tensors="pt")
with torch.no_grad():
    assert torch.equal(model(**inputs).logits, local(**inputs).logits)
found = pipeline("object-detection", model="someone/trained", threshold=0.0)(picture)
assert found and found[0]["label"] in model.config.label2id

command("train", "--model", "someone/trained", "--output", "tuned", *short)
command("push", "tuned", "someone/tuned", "--license", "apache-2.0")
command("predict", picture, "--model", "someone/tuned", "--output", "found", "--threshold", "0.0")

model.push_to_hub("by-parts")
processor.push_to_hub("someone/by-parts")

data = load_detection_data("synthetic:6")
arguments = HfDetrTrainingArguments("by-trainer", hub_model_id="someone/by-trainer", report_to="none")
trainer = HfDetrTrainer(
    model, arguments, None, undecoded(data["train"]), undecoded(data["validation"]), processor
)
trainer.evaluate()
trainer.push_to_hub(license="mit", dataset_name="drawn scenes")
"""

WITHOUT_THE_PACKAGE = """
import sys
# None makes every import of that name fail, as if it were not installed; so do optional compilers.
sys.modules.update(dict.fromkeys(["hf_detr", "numba", "triton"]))
from transformers import pipeline

detector = pipeline("object-detection", model="someone/with-code", threshold=0.0, trust_remote_code=True)
assert type(detector.model).__module__.startswith("transformers_modules.someone")
assert type(detector.image_processor).__module__.startswith("transformers_modules.someone")
assert len(detector(sys.argv[1])) > 0
"""


def run_python(code: str, *arguments: str | Path, hub: HubServer, folder: Path) -> None:
    """Run code in a process of its own, which has a Hub and an empty cache."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": WRITER,
        "HF_HOME": str(folder / "hf-home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small untrained model for the classes of the built-in data, and a picture."""
    work = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    names = dict(enumerate(category_names(make_synthetic_dataset(1))))
    backbone = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    config = HfDetrConfig.from_preset("tiny", d_model=32, num_queries=20, backbone_kwargs=backbone, id2label=names)
    HfDetrForObjectDetection(config).save_pretrained(work / "start")
    size = {"shortest_edge": 128, "longest_edge": 192}
    HfDetrImageProcessor(size=size, classification="sigmoid").save_pretrained(work / "start")
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(work / "picture.png")
    return work


@pytest.fixture(scope="module")
def used_hub(work: Path) -> Iterator[HubServer]:
    """The Hub after `WITH_THE_PACKAGE`, which checks for itself what it loads."""
    with HubServer() as server:
        run_python(WITH_THE_PACKAGE, work / "start", work / "picture.png", hub=server, folder=work)
        yield server


def card_of(hub: HubServer, repo: str) -> ModelCard:
    return ModelCard(hub.head(repo).files["README.md"].decode())


def test_training_ends_on_the_hub(used_hub: HubServer, work: Path):
    assert used_hub.repositories[TRAINED].private
    assert len(used_hub.repositories[TRAINED].branches["main"]) == 2
    files = used_hub.head(TRAINED).files
    pictures = {f"pictures/{path.name}" for path in (work / "out" / "pictures").glob("*.jpg")}
    assert pictures
    expected = {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "results.csv",
        "results.png",
    }
    assert set(files) - {".gitattributes"} == expected | pictures
    assert files["model.safetensors"] == (work / "out" / "model.safetensors").read_bytes()


def test_the_card_tells_what_the_run_was(used_hub: HubServer):
    card = card_of(used_hub, TRAINED)
    [entry] = card.data.to_dict()["model-index"]
    assert entry["name"] == "trained"
    assert entry["results"][0]["dataset"]["name"] == "synthetic"
    for text in (
        f'model="{TRAINED}"',
        "train: 6 images",
        "hf-detr ",
        "| optimizer steps | 2 |",
        "images a second",
        "shortest edge 128",
        "at most 20 objects",
        "Nobody has stated one",
        "zhang2023dino",
    ):
        assert text in card.text, text


def test_a_tuned_model_names_the_one_it_started_from(used_hub: HubServer, work: Path):
    card = card_of(used_hub, TUNED)
    assert card.data.base_model == TRAINED
    assert card.data.license == "apache-2.0"
    assert f"so has the model that training started from, [{TRAINED}]" in card.text
    predictions = json.loads((work / "found" / "predictions.json").read_text())
    assert len(predictions) > 0


def test_a_model_and_its_processor_share_a_repository(used_hub: HubServer):
    files = used_hub.head(BY_PARTS).files
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(files)
    trained = load(used_hub.head(TRAINED).files["model.safetensors"])
    pushed = load(files["model.safetensors"])
    assert trained.keys() == pushed.keys()
    assert all(torch.equal(trained[name], pushed[name]) for name in trained)


def test_the_trainer_pushes_a_card_of_its_own_evidence(used_hub: HubServer):
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(used_hub.head(BY_TRAINER).files)
    card = card_of(used_hub, BY_TRAINER)
    assert card.data.license == "mit"
    assert card.data.eval_results[0].dataset_name == "drawn scenes"
    assert "Nothing is recorded of its training." in card.text
    assert "COCO metrics on drawn scenes" in card.text
    assert "training images" not in card.text
    assert "objects in training" not in card.text


def test_a_model_with_its_code_needs_no_package(work: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer() as hub:
        api = HfApi(endpoint=hub.url, token=WRITER)
        options = PushOptions(folder=work / "start", repo="someone/with-code", private=True, with_code=True)
        push_folder(options, api=api)
        run_python(WITHOUT_THE_PACKAGE, work / "picture.png", hub=hub, folder=work)
