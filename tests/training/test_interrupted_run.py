"""A run of the command line that is killed goes on as if nothing had happened, bit by bit."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_detr.training.model_folder import last_complete_checkpoint

# Seconds differ from run to run, and `Trainer` gives the mean loss since it was started.
OF_THE_PROCESS = ("runtime", "per_second", "train_loss")
TIMEOUT = 280


def start(output: Path, *options: str) -> subprocess.Popen:
    """Begin a run: 8 images, EMA and strong augmentation on, 3 epochs of 4 steps, evaluated after each."""
    # so short a run would not be evaluated, and saved, before its end
    program = "import hf_detr.training.recipe as recipe; recipe.LEAST_STEPS_PER_EVALUATION = 1; "
    program += "from hf_detr.cli import app; app()"
    arguments = ["--data", "synthetic:8", "--output", str(output), "--epochs", "3", "--batch-size", "2"]
    arguments += ["--image-size", "32", "--augmentation", "strong", "--seed", "3"]
    smaller = ("backbone=test_resnet", "d_model=64", "encoder_layers=1", "decoder_layers=2", "num_queries=20")
    arguments += [part for field in smaller for part in ("--set", field)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", *arguments, *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    try:
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-2000:]


def kill_after_first_checkpoint(process: subprocess.Popen, output: Path) -> None:
    """Kill the run, and all that it started, as soon as it has something to go on from."""
    deadline = time.monotonic() + TIMEOUT
    while last_complete_checkpoint(output / "checkpoints") is None:
        assert process.poll() is None, process.stderr.read()[-2000:]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def curve(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.endswith(OF_THE_PROCESS)} for row in rows]


def test_a_killed_run_goes_on_bit_by_bit_and_a_second_one_is_the_same(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    process = start(killed)
    kill_after_first_checkpoint(process, killed)
    assert not (killed / "config.json").exists()
    # the kill may as well have come while the next checkpoint was written
    half_written = killed / "checkpoints" / "checkpoint-999"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text('{"global_step": 9')
    finish(start(killed, "--resume"))

    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert curve(killed) == curve(whole)
    assert any(row["matching_changed"] for row in curve(whole))
    assert sorted(path.name for path in (killed / "pictures").iterdir()) == sorted(
        path.name for path in (whole / "pictures").iterdir()
    )
