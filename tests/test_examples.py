"""The examples run as they stand, on a few built-in pictures."""

import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
OPTIONS = ["--data", "synthetic:4", "--image-size", "128", "--epochs", "1", "--batch-size", "2"]


def run(monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> None:
    monkeypatch.setattr("sys.argv", [name, *OPTIONS, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("name", ["finetune_with_trainer.py", "finetune_with_accelerate.py"])
def test_example(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    run(monkeypatch, name, "--output", str(tmp_path / "model"))
    assert "AP50" in capsys.readouterr().out
    assert len((EXAMPLES / name).read_text().splitlines()) < 200
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["id2label"]["0"] == "ball"


def test_the_accelerate_example_resumes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    output = ("--output", str(tmp_path / "model"))
    run(monkeypatch, "finetune_with_accelerate.py", *output)
    run(monkeypatch, "finetune_with_accelerate.py", *output, "--epochs", "2", "--resume")
    printed = capsys.readouterr().out
    assert printed.count("epoch 1:") == 1
    assert printed.count("epoch 2:") == 1
