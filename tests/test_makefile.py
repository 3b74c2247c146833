"""The Makefile's choice of interpreter and its stamps, with interpreters that only write down their arguments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# `-m venv` makes what the real one makes, as far as the Makefile can see.
FAKE_PYTHON = """#!/bin/sh
echo "$0 $*" >> "$CALLS"
if [ "$2" = venv ]; then
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
fi
case "$*" in *"$FAIL_ON"*) exit 1;; esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Checkout:
    """A folder with the Makefile; `make` returns the calls of the interpreters."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.calls = folder / "calls"
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy2(ROOT / name, folder / name)
        self.python("commands/python3")

    def python(self, path: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FAKE_PYTHON)
        file.chmod(0o755)
        return file

    def make(self, *arguments: str, fail_on: str = "-m nothing", **variables: str) -> list[str]:
        self.calls.write_text("")
        path = f"{self.folder / 'commands'}:{os.environ['PATH']}"
        environment = {"PATH": path, "CALLS": str(self.calls), "FAIL_ON": fail_on, **variables}
        done = subprocess.run(["make", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert (done.returncode == 0) == (fail_on == "-m nothing"), done.stdout + done.stderr
        return self.calls.read_text().replace(f"{self.folder}/", "").splitlines()

    def age(self) -> None:
        """Make all files an hour older, so that what is written next is newer on any file system."""
        for file in self.folder.rglob("*"):
            status = file.stat()
            os.utime(file, (status.st_atime - 3600, status.st_mtime - 3600))


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


def installs(calls: list[str]) -> list[str]:
    return [call for call in calls if " -m pip " in call]


def test_a_fresh_machine_gets_a_virtual_environment_once(checkout):
    assert checkout.make("test") == [
        "commands/python3 -m venv .venv",
        ".venv/bin/python -m pip install --editable .[test]",
        ".venv/bin/python -m ruff check",
        ".venv/bin/python -m ruff format --check",
        ".venv/bin/python -c from importlinter.cli import lint_imports_command as run; run()",
        ".venv/bin/python -m mypy",
        ".venv/bin/python -m pytest -n 2 --dist worksteal -m not sweep",
    ]
    again = checkout.make("test")
    assert [call.split()[2] for call in again] == ["ruff", "ruff", "from", "mypy", "pytest"]


def test_the_sweep_and_the_site_are_commands_of_their_own(checkout):
    checkout.make("test")
    assert checkout.make("sweep") == [".venv/bin/python -m pytest -n 2 --dist worksteal -m sweep"]
    assert checkout.make("docs") == [
        ".venv/bin/python -m pip install --editable .[docs]",
        ".venv/bin/python -m mkdocs build",
    ]


def test_the_demo_installs_its_own_extra_and_runs_the_command_line(checkout):
    checkout.make("test")
    run = ".venv/bin/python -m hf_detr.cli demo"
    assert checkout.make("demo") == [".venv/bin/python -m pip install --editable .[demo]", run]
    assert checkout.make("demo") == [run]


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_used(checkout, variable):
    checkout.python("active/bin/python")
    calls = checkout.make("test", **{variable: str(checkout.folder / "active")})
    assert {call.split()[0] for call in calls} == {"active/bin/python"}
    assert not (checkout.folder / ".venv").exists()


def test_an_active_environment_that_is_gone_is_ignored(checkout):
    calls = checkout.make("test", VIRTUAL_ENV=str(checkout.folder / "deleted"))
    assert calls[0] == "commands/python3 -m venv .venv"


def test_a_named_interpreter_goes_before_the_active_environment(checkout):
    checkout.python("active/bin/python")
    named = checkout.python("other/bin/python3.13")
    calls = checkout.make("test", f"PYTHON={named}", VIRTUAL_ENV=str(checkout.folder / "active"))
    assert {call.split()[0] for call in calls} == {"other/bin/python3.13"}
    assert not installs(checkout.make("test", f"PYTHON={named}"))
    # Each interpreter has its own stamps.
    assert installs(checkout.make("test", VIRTUAL_ENV=str(checkout.folder / "active")))


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml"])
def test_changed_requirements_are_installed(checkout, name):
    checkout.make("test")
    checkout.age()
    (checkout.folder / name).touch()
    assert installs(checkout.make("test"))
    assert not installs(checkout.make("test"))


def test_an_environment_made_anew_is_filled_again(checkout):
    checkout.python("active/bin/python")
    configuration = checkout.folder / "active/pyvenv.cfg"
    configuration.touch()
    variables = {"VIRTUAL_ENV": str(checkout.folder / "active")}
    checkout.make("test", **variables)
    checkout.age()
    assert not installs(checkout.make("test", **variables))
    configuration.touch()
    assert installs(checkout.make("test", **variables))


@pytest.mark.parametrize("step", ["-m venv", "-m pip"])
def test_a_failed_step_is_done_again(checkout, step):
    checkout.make("test", fail_on=step)
    assert any(step in call for call in checkout.make("test"))


@pytest.mark.parametrize("step", ["-m ruff check", "-m ruff format", "importlinter", "-m mypy", "-m pytest"])
def test_a_failed_check_fails_the_command(checkout, step):
    assert step in checkout.make("test", fail_on=step)[-1]


def test_continuous_integration_runs_the_tests_from_any_folder(checkout, tmp_path_factory):
    script = checkout.folder / ".ci/run"
    script.parent.mkdir()
    shutil.copy2(ROOT / ".ci/run", script)
    named = checkout.python("other/bin/python")
    environment = {"PATH": os.environ["PATH"], "CALLS": str(checkout.calls), "FAIL_ON": "-m nothing"}
    environment["PYTHON"] = str(named)
    subprocess.run([script], cwd=tmp_path_factory.mktemp("elsewhere"), env=environment, check=True)
    assert "-m pytest" in checkout.calls.read_text()
