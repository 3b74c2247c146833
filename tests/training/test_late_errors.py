"""Whatever goes wrong late in a run, the model trained so far stays, and the error says where."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainerCallback

from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.prediction import load_detector
from hf_detr.training import model_folder, run
from hf_detr.training.callbacks import PredictionPictures
from hf_detr.training.options import RunOptions
from hf_detr.training.trainer import HfDetrTrainer

SMALL = {
    "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 20,
    "backbone_kwargs": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
}  # fmt: skip


def write_coco(folder: Path, picture: Image.Image) -> None:
    """A COCO folder whose two splits hold the same picture of 64 x 64 pixels with one object."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        picture.save(folder / split / "1.jpg")
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (folder / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(
        data="synthetic:2", output=tmp_path / "model", steps=2, batch_size=1, image_size=128, config_overrides=SMALL
    )


class FailAtStep(TrainerCallback):
    def __init__(self, step: int):
        self.step = step
        self.model: HfDetrForObjectDetection | None = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.model = model
        if state.global_step == self.step:
            raise RuntimeError("the callback failed")


def fail(*_, **__):
    raise OSError("no space left on device")


def test_a_callback_that_fails_leaves_the_model_so_far(options: RunOptions):
    callback = FailAtStep(1)
    with pytest.raises(RuntimeError, match="the callback failed") as caught:
        run.run_training(options, [callback])
    [note] = caught.value.__notes__
    assert f"The model as trained until step 1 is kept in {options.unfinished}: start from it with --model" in note
    model, _ = load_detector(str(options.unfinished))
    trained = dict(callback.model.named_parameters())
    assert trained.keys() == dict(model.named_parameters()).keys()
    assert not (options.output / "config.json").exists()  # the run is not finished


def test_a_run_that_fails_at_once_leaves_nothing(options: RunOptions, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HfDetrTrainer, "training_step", fail)
    with pytest.raises(OSError) as caught:
        run.run_training(options)
    assert not hasattr(caught.value, "__notes__")
    assert not options.output.exists()


@pytest.mark.parametrize(
    ("place", "name"),
    [(HfDetrTrainer, "evaluate_by_class"), (model_folder, "build_model_card")],
)
def test_a_failure_after_training_leaves_the_model_in_its_folder(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, place: object, name: str
):
    with monkeypatch.context() as broken:
        broken.setattr(place, name, fail)
        with pytest.raises(OSError, match="no space") as caught:
            run.run_training(options)
    [note] = caught.value.__notes__
    assert f"The trained model is kept in {options.output}" in note
    assert "--resume" in note
    before = load_detector(str(options.output))[0].state_dict()
    assert not (options.output / "README.md").exists()
    if place is HfDetrTrainer:
        return  # going on is the same for all of them

    result = run.run_training(RunOptions(**{**vars(options), "resume": True}))
    assert "AP" in result
    assert (options.output / "README.md").exists()
    assert not options.checkpoints.exists()
    after = load_detector(str(options.output))[0].state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_drawing_that_fails_in_training_leaves_the_model_so_far(options: RunOptions, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PredictionPictures, "_draw", fail)
    with pytest.raises(OSError, match="no space") as caught:
        run.run_training(options)
    assert "is kept in" in caught.value.__notes__[0]
    load_detector(str(options.unfinished))


def test_a_validation_picture_with_damaged_pixels_leaves_the_model(options: RunOptions, tmp_path: Path):
    """The header of a JPEG tells nothing of damage; of a PNG, reading the header reads the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_coco(tmp_path / "data", Image.fromarray(pixels))
    damaged = tmp_path / "data" / "val" / "1.jpg"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"val.1\.jpg") as caught:
        run.run_training(replace(options, data=str(tmp_path / "data")))
    assert "is kept in" in caught.value.__notes__[0]
    kept = [folder for folder in (options.output, options.unfinished) if (folder / "config.json").exists()]
    assert len(kept) == 1
    load_detector(str(kept[0]))


def test_a_damaged_training_picture_is_told_on_a_line_of_its_own(
    options: RunOptions, tmp_path: Path, capfd: pytest.CaptureFixture
):
    write_coco(tmp_path / "data", Image.effect_noise((64, 64), 90).convert("RGB"))
    damaged = tmp_path / "data" / "train" / "1.jpg"
    damaged.write_bytes(damaged.read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"train.1\.jpg") as caught:
        run.run_training(replace(options, data=str(tmp_path / "data")))
    assert caught.value.__notes__ == ["`hf-detr doctor` with the same --data lists all damaged pictures"]
    assert capfd.readouterr().err.endswith("\n")
    assert not options.output.exists()


def test_an_old_model_stays_when_the_run_that_would_replace_it_fails(options: RunOptions):
    run.run_training(options)
    before = (options.output / "model.safetensors").read_bytes()
    with pytest.raises(RuntimeError):
        run.run_training(RunOptions(**{**vars(options), "overwrite": True, "seed": 1}), [FailAtStep(1)])
    assert (options.output / "model.safetensors").read_bytes() == before
    assert (options.output / "README.md").exists()
    run.run_training(RunOptions(**{**vars(options), "overwrite": True, "seed": 1}))
    assert (options.output / "model.safetensors").read_bytes() != before
    assert not options.unfinished.exists()
