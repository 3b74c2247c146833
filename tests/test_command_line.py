"""Every command and option of the command line stands in `command_line.txt`; a change of it is a decision.

Where the change is meant, write the file anew:

    python tests/test_command_line.py
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.models import OptionInfo
from typer.testing import CliRunner

from hf_detr.cli import app
from hf_detr.command_line import argument, command, flag, option

SNAPSHOT = Path(__file__).with_name("command_line.txt")


def commands(group: typer.Typer, name: str) -> Iterator[tuple[str, inspect.Signature]]:
    """Yield every command below a group by what calls it, with its options."""
    for below in group.registered_groups:
        yield from commands(below.typer_instance, f"{name} {below.name}")
    for known in group.registered_commands:
        yield f"{name} {known.name or known.callback.__name__}", inspect.signature(known.callback)


def line(parameter: inspect.Parameter) -> str:
    """Say what calls an option, what it takes and what it is without being given."""
    read, declared = get_args(parameter.annotation)
    words = [word for word in (declared.default, *(declared.param_decls or ())) if isinstance(word, str)]
    name = " ".join(words or [flag(parameter.name)]) if isinstance(declared, OptionInfo) else parameter.name.upper()
    parts = [getattr(read, "__name__", str(read)) if isinstance(read, type) else str(read)]
    parts += [f"{side} {getattr(declared, side)}" for side in ("min", "max") if getattr(declared, side) is not None]
    default = parameter.default
    if isinstance(declared.show_default, str):
        default = declared.show_default
    return f"{name}: {', '.join(parts)}, {'required' if default is parameter.empty else f'default {default}'}"


def command_line() -> str:
    """Return the whole command line as text."""
    blocks = (
        "\n".join([name, *(f"  {line(parameter)}" for parameter in signature.parameters.values())])
        for name, signature in sorted(commands(app, "hf-detr"), key=lambda pair: pair[0])
    )
    return "\n".join(blocks) + "\n"


def test_the_command_line_is_the_one_that_was_decided():
    expected = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    found = command_line().splitlines()
    gone, new = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    assert found == expected, (
        f"gone: {gone}; new: {new}; where this is meant, write the file anew: python tests/{Path(__file__).name}"
    )


def test_every_help_text_is_a_sentence():
    signatures = [signature for _, signature in commands(app, "hf-detr")]
    found = [get_args(known.annotation)[1].help for signature in signatures for known in signature.parameters.values()]
    assert len(found) > 50
    assert [text for text in found if not (text[0].isupper() and text.endswith("."))] == []


@dataclass(frozen=True, kw_only=True)
class Options:
    files: tuple[Path, ...] = argument("The files.")
    folder: Path = option("The folder.", default=Path("here"))
    name: str | None = option("The name.", default=None)
    numbers: tuple[int, ...] | None = option("The numbers.", "--number", default=None, min=1)
    words: tuple[str, ...] = option(
        "The words.", default=("a", "b"), typed=str, parse=lambda text: tuple(text.split(","))
    )
    fast: bool = option("Be fast.", "--fast", default=False)
    unseen: str = "kept"


def run(*arguments: str) -> tuple[list[Options], Any]:
    small, seen = typer.Typer(), []

    @command(small, Options)
    def act(options: Options) -> None:
        """Act."""
        if options.name == "nobody":
            raise ValueError("there is nobody")
        seen.append(options)

    return seen, CliRunner().invoke(small, arguments)


def test_a_command_gets_its_options_as_they_are_declared():
    assert run("one", "two")[0] == [Options(files=(Path("one"), Path("two")))]
    words = ["one", "--folder", "there", "--name", "x", "--number", "3", "--number", "4", "--words", "c", "--fast"]
    expected = Options(files=(Path("one"),), folder=Path("there"), name="x", numbers=(3, 4), words=("c",), fast=True)
    assert run(*words)[0] == [expected]
    assert run("one", "--number", "0")[1].exit_code == 2
    assert run("--fast")[1].exit_code == 2  # the files are missing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "--name", "nobody"], "there is nobody"),
        (["one", "--name", ""], "--name: expected a text, got an empty one"),
        (["one", "--folder", ""], "--folder: expected a path, got an empty one"),
        (["one", ""], "FILES: expected a path, got an empty one"),
        (["one", "--words", " "], "--words: expected a text, got an empty one"),
    ],
)
def test_what_is_wrong_with_an_option_is_one_line(words: list[str], message: str):
    seen, result = run(*words)
    assert seen == []
    assert result.exit_code == 2
    assert result.stderr == f"hf-detr: {message}\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(command_line(), encoding="utf-8")
