"""Tests of the callbacks that show and keep the progress of a run."""

import csv
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from transformers.integrations import TensorBoardCallback

from hf_detr.training import PredictionPictures, ResultFiles
from hf_detr.training.callbacks import (
    PANELS,
    EarlyStopping,
    evaluation_line,
    plot_results,
    step_folders,
    thin_out,
)

EVALUATING = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


def test_an_evaluation_is_one_line():
    state = SimpleNamespace(global_step=20, max_steps=80, epoch=2.0, log_history=[])
    state.log_history = [
        {"step": 10, "eval_AP": 0.5},
        {"step": 20, "loss": 2.5},
        {"step": 20, "eval_AP": 0.25},
    ]
    line = evaluation_line({"eval_AP": 0.25, "eval_AP50": 0.75, "eval_loss": 3.0, "epoch": 2.0}, state)
    assert line == (
        "step 20/80  epoch 2.0  loss 2.500  validation loss 3.000  AP 0.250  AP50 0.750  (best AP 0.500 at step 10)"
    )
    state.log_history.append({"step": 20, "eval_AP": 0.75})
    assert evaluation_line({"eval_AP": 0.75}, state).endswith("AP 0.750  (best)")
    state.log_history = [{"step": 20, "eval_AP": -1.0}]  # COCO's word for nothing to measure on
    assert evaluation_line({"eval_AP": -1.0}, state).endswith("AP n/a")


def test_early_stopping_says_which_step_was_best(build_trainer, capsys):
    # nothing is learned with this rate, so AP never rises after the first evaluation
    arguments = {**EVALUATING, "max_steps": 8, "learning_rate": 1e-12, "metric_for_best_model": "AP"}
    trainer = build_trainer({**arguments, "load_best_model_at_end": True}, callbacks=[EarlyStopping(2)])
    trainer.train()
    assert trainer.state.global_step == 3
    message = "Stopped at step 3 of 8: no better AP in 2 evaluations; the best was"
    assert capsys.readouterr().out.count(message) == 1
    trainer.evaluate()
    assert message not in capsys.readouterr().out


def test_an_interrupted_patience_goes_on(build_trainer, tmp_path: Path):
    arguments = {**EVALUATING, "max_steps": 8, "learning_rate": 1e-12, "metric_for_best_model": "AP"}
    build_trainer(arguments, callbacks=[EarlyStopping(3)]).train()
    resumed = build_trainer(arguments, callbacks=[EarlyStopping(3)])
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.state.global_step == 4


def test_pictures_are_kept_by_step(build_trainer, validation_data, tmp_path: Path):
    folder = tmp_path / "pictures"
    pictures = PredictionPictures(folder, validation_data, count=2, kept=3)
    trainer = build_trainer({**EVALUATING, "max_steps": 5}, callbacks=[pictures])
    trainer.train()
    assert list(step_folders(folder)) == [1, 3, 5]
    newest = sorted(path.name for path in folder.glob("*.jpg"))
    assert len(newest) == 2
    for kept in step_folders(folder).values():
        assert sorted(path.name for path in kept.iterdir()) == newest
    last = (folder / "step-000005" / newest[0]).read_bytes()
    assert (folder / newest[0]).read_bytes() == last
    trainer.evaluate()  # of the finished model: no step
    assert list(step_folders(folder)) == [1, 3, 5]
    again = build_trainer({**EVALUATING, "max_steps": 4}, callbacks=[pictures])
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert 5 not in step_folders(folder)


def test_the_folders_left_are_spread_over_the_run(tmp_path: Path):
    for step in range(10, 1010, 10):
        (tmp_path / f"step-{step:06d}").mkdir()
        thin_out(step_folders(tmp_path), kept=6)
    steps = list(step_folders(tmp_path))
    assert len(steps) == 6
    assert (steps[0], steps[-1]) == (10, 1000)
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) <= 400


def test_the_table_and_plot_are_of_the_training(build_trainer, tmp_path: Path):
    trainer = build_trainer({**EVALUATING, "max_steps": 9}, callbacks=[ResultFiles(tmp_path)])
    trainer.train()
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 10))
    columns = {name for names in PANELS.values() for name in names}
    assert columns <= rows[0].keys()
    assert {"loss_ce_0", "loss_bbox_0"} <= rows[0].keys()
    changed = {int(row["step"]): row["matching_changed"] for row in rows if row["matching_changed"]}
    assert changed.keys() == {8, 9}
    written = (tmp_path / "results.csv").read_bytes()
    trainer.evaluate()
    assert (tmp_path / "results.csv").read_bytes() == written
    assert Image.open(tmp_path / "results.png").size == (1300, 700)


def test_a_plot_of_nothing_can_be_drawn(tmp_path: Path):
    plot_results([{"step": 1}], tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size == (1300, 700)


def test_every_loss_term_of_every_layer_reaches_tensorboard(build_trainer, validation_data, tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = build_trainer({**EVALUATING, "max_steps": 9, "report_to": ["tensorboard"]})
    [callback] = [c for c in trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback)]
    callback.logging_dir = str(tmp_path / "tensorboard")
    trainer.train()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = set(events.Tags()["scalars"])
    layers = {f"train/{term}{layer}" for term in ("loss_ce", "loss_bbox", "loss_giou") for layer in ("", "_0")}
    assert layers | {"eval/AP", "eval/loss", "train/learning_rate", "train/matching_changed"} <= scalars
    logged = {row["step"]: row["loss_ce_0"] for row in trainer.state.log_history if "loss_ce_0" in row}
    written = {event.step: event.value for event in events.Scalars("train/loss_ce_0")}
    assert written == pytest.approx(logged)
