"""The options of a run that can be judged before anything is built."""

import importlib.util

import pytest

from hf_detr.training import options


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tensorbord"], "--report-to tensorbord: expected some of tensorboard, trackio, wandb"),
        (["tensorboard", "wandb"], "--report-to wandb: wandb is not installed; pip install wandb"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_named(monkeypatch, names: list[str], message: str):
    installed = importlib.util.find_spec
    monkeypatch.setattr(options, "find_spec", lambda name: None if name == "wandb" else installed(name))
    with pytest.raises(ValueError, match=message):
        options.check_trackers(names)
