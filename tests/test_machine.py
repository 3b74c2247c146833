"""The machine is described, and its idle threads go to sleep."""

import os
import re
import subprocess
import sys

import pytest

from hf_detr.machine import (
    SPIN_COUNT,
    WAITING,
    cores,
    describe,
    hardware_line,
    let_threads_sleep,
    package_versions,
)


def test_hardware_and_versions_describe_this_machine():
    assert hardware_line().count("\n") == 0
    assert re.search(r"\d", hardware_line())
    versions = package_versions()
    assert set(versions) >= {"hf-detr", "torch", "transformers"}
    assert all(re.match(r"\d+\.", version) for version in versions.values())


def test_a_package_that_is_not_installed_has_no_version():
    assert set(package_versions(["torch", "no-such-package"])) == {"torch"}


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    assert describe("cpu")["cores"] == 1


def waiting_of_the_command(**environment: str) -> list[str]:
    """Return what is set in the command itself before torch is loaded, and what a process sees that it starts."""
    program = """
import os, subprocess, sys
from hf_detr import cli
loaded = "torch" in sys.modules
cli.app = lambda: None
cli.main()
see = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"
print(loaded, os.environ.get("GOMP_SPINCOUNT"), subprocess.check_output([sys.executable, "-c", see], text=True))
"""
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", program], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_command_has_idle_threads_sleep_before_torch_is_loaded():
    assert waiting_of_the_command() == ["False", str(SPIN_COUNT), str(SPIN_COUNT)]


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "active", "None"), ("KMP_BLOCKTIME", "0", "None")],
)
def test_how_threads_wait_is_left_to_a_user_who_says_it(monkeypatch, name: str, value: str, seen: str):
    for other in WAITING:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    let_threads_sleep()
    assert os.environ[name] == value
    assert os.environ.get("GOMP_SPINCOUNT", "None") == seen
