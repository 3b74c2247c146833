"""What a reader has to hold in mind at once stays small: functions, their parameter lists, the network's folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src/hf_detr"
MOST_LINES = 60
MOST_PARAMETERS = 10
KERNELS = {"deformable_cpu.py", "deformable_triton.py"}
MOST_LINES_OF_THE_NETWORK = 5000  # about 250 for each of the four families that the real-time detectors add

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(code: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(code)) if isinstance(node, Function))


def num_lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def num_parameters(function: Function) -> int:
    """How many names a caller can give; `*args` and `**kwargs` count as one each, `self` and `cls` do not count."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def named(files: list[Path], code: dict[Path, str]) -> Iterator[tuple[str, Function]]:
    for file in files:
        for function in functions(code[file]):
            yield f"{file.relative_to(SOURCE)}:{function.lineno} {function.name}", function


@pytest.fixture(scope="module")
def code() -> dict[Path, str]:
    return {file: file.read_text(encoding="utf-8") for file in sorted(SOURCE.rglob("*.py"))}


def test_what_is_counted():
    text = "class A:\n    def f(self, a, *b, c=1, **d):\n        def g():\n            pass\n\n        return g\n"
    counted = {function.name: (num_lines(function), num_parameters(function)) for function in functions(text)}
    assert counted == {"f": (5, 4), "g": (2, 0)}


def test_a_function_fits_a_screen(code):
    long = {place: num_lines(found) for place, found in named(list(code), code) if num_lines(found) > MOST_LINES}
    assert not long, f"functions of more than {MOST_LINES} lines"


def test_a_function_takes_few_parameters(code):
    files = [file for file in code if file.name not in KERNELS]
    many = {place: num_parameters(found) for place, found in named(files, code)}
    many = {place: number for place, number in many.items() if number > MOST_PARAMETERS}
    assert not many, f"functions of more than {MOST_PARAMETERS} parameters"


def test_the_network_stays_small_enough_to_read(code):
    lines = {file.name: len(text.splitlines()) for file, text in code.items() if file.parent == SOURCE / "modeling"}
    assert sum(lines.values()) <= MOST_LINES_OF_THE_NETWORK, lines
