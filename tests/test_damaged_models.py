"""Whatever is wrong with a model folder is one line of the command, whichever command loads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from hf_detr import HfDetrImageProcessor
from hf_detr.cli import app
from modeling.tiny import tiny_model

Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    tiny_model("tiny").save_pretrained(folder)
    HfDetrImageProcessor(size={"height": 64, "width": 64}, classification="sigmoid").save_pretrained(folder)
    return folder


def change(name: str, **fields: Any) -> Damage:
    """Return what replaces fields of a JSON file."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | fields))

    return damage


def write(name: str, content: bytes) -> Damage:
    """Return what replaces a file."""
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Damage:
    """Return what cuts off the second half of a file."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def remove(name: str) -> Damage:
    """Return what removes a file."""
    return lambda folder: (folder / name).unlink()


def other_weights(folder: Path) -> None:
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})


CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "weights cut off": (cut(WEIGHTS), "no safetensors file, or not all of one"),
    "weights empty": (write(WEIGHTS, b""), "no safetensors file, or not all of one"),
    "weights no safetensors": (
        write(WEIGHTS, b"<html>nothing</html>" * 9),
        "no safetensors file, or not all of one",
    ),
    "weights missing": (remove(WEIGHTS), WEIGHTS),
    "weights of another model": (other_weights, "of the weights are missing in its files"),
    "weights of another shape": (change(CONFIG, encoder_ffn_dim=48), "other shapes than its configuration"),
    "configuration missing": (remove(CONFIG), "holds no model: config.json is missing"),
    "configuration cut off": (cut(CONFIG), "config.json is not JSON"),
    "configuration a list": (write(CONFIG, b"[]"), "config.json: expected a JSON object, found a list"),
    "number a word": (change(CONFIG, num_queries="many"), "num_queries"),
    "number negative": (change(CONFIG, decoder_layers=-1), "decoder_layers=-1"),
    "choice unknown": (change(CONFIG, encoder="strange"), "encoder"),
    "name empty": (change(CONFIG, backbone=""), "backbone=''"),
    "name a number": (change(CONFIG, backbone=3), "backbone"),
    "type empty": (change(CONFIG, model_type=""), "expected a model_type among hf_detr"),
    "type of another model": (change(CONFIG, model_type="bert"), "expected a model_type among hf_detr"),
    "classes a word": (change(CONFIG, id2label="cat"), "cannot be loaded as a model"),
    "processor missing": (remove(PROCESSOR), "image processor"),
    "processor no JSON": (write(PROCESSOR, b"nothing"), "preprocessor_config.json is not JSON"),
    "processor a list": (write(PROCESSOR, b"[]"), "preprocessor_config.json: expected a JSON object"),
    "size a word": (change(PROCESSOR, size="big"), "size"),
}


@pytest.fixture
def commands(tmp_path: Path) -> Callable[[Path], list[list[str]]]:
    """The commands that load a model, with a model folder."""
    Image.new("RGB", (100, 80)).save(tmp_path / "picture.png")

    def all_of(model: Path) -> list[list[str]]:
        return [
            ["predict", f"{tmp_path}/picture.png", "--model", str(model), "--output", f"{tmp_path}/predictions"],
            ["eval", "--model", str(model), "--data", "synthetic:2"],
            ["train", "--model", str(model), "--data", "synthetic:2", "--steps", "1", "--output", f"{tmp_path}/new"],
        ]

    return all_of


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_model_folder_is_one_line(kind: str, good: Path, tmp_path: Path, commands):
    damage, expected = DAMAGES[kind]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    damage(folder)
    for words in commands(folder):
        if words[0] == "train" and kind == "weights of another shape":
            continue  # fine-tuning starts such weights anew
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, (words, result.output)
        assert isinstance(result.exception, SystemExit)
        [line] = result.stderr.splitlines()
        assert str(folder) in line
        assert expected in line
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("model", ["nowhere", "some/where/else", "model.txt"])
def test_a_model_that_is_not_there_is_one_line(model: str, tmp_path: Path, commands, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "model.txt").write_text("no model")
    for words in commands(tmp_path / model):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, (words, result.output)
        [line] = result.stderr.splitlines()
        assert model in line


def test_a_push_of_a_damaged_folder_is_one_line(good: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    for kind in ("weights cut off", "number a word", "number negative", "type of another model", "processor a list"):
        folder = tmp_path / kind
        shutil.copytree(good, folder)
        DAMAGES[kind][0](folder)
        result = CliRunner().invoke(app, ["push", str(folder), "someone/model"])
        assert result.exit_code == 2, result.output
        [line] = result.stderr.splitlines()
        assert str(folder) in line


EMPTY = [
    ["train", "--data", ""],
    ["train", "--data", "synthetic", "--model", ""],
    ["train", "--data", "synthetic", "--preset", ""],
    ["train", "--data", "synthetic", "--output", ""],
    ["train", "--data", "synthetic", "--set", ""],
    ["eval", "--model", "", "--data", "synthetic"],
    ["eval", "--model", "model", "--data", ""],
    ["predict", "", "--model", "model", "--output", "out"],
    ["predict", "picture.png", "--model", "", "--output", "out"],
    ["predict", "picture.png", "--model", "model", "--output", ""],
    ["push", "", "someone/model"],
    ["push", "model", ""],
    ["doctor", "--data", ""],
    ["bench", "inference", "--preset", ""],
]


@pytest.mark.parametrize("words", EMPTY, ids=" ".join)
def test_an_empty_text_is_refused_by_the_name_of_its_option(words: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    where = words.index("")
    name = words[where - 1] if words[where - 1].startswith("--") else ("SOURCES", "FOLDER", "REPO")
    assert any(f"hf-detr: {one}: expected a" in line for one in ([name] if isinstance(name, str) else name))
    assert list(tmp_path.iterdir()) == []
