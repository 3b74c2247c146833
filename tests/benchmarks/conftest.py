"""The scripts of `benchmarks/`, importable as when one of them is started."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FOLDERS = [str(BENCHMARKS / "training"), str(BENCHMARKS / "speed")]


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of `benchmarks/` by name."""
    sys.path[:0] = FOLDERS
    try:
        yield importlib.import_module
    finally:
        for folder in FOLDERS:
            sys.path.remove(folder)


@pytest.fixture
def two_steps(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trainings as short as they can be: one step to warm up and one to time, two images a batch."""
    monkeypatch.setattr(script("timed_training"), "WARM_UP_STEPS", 1)
    monkeypatch.setattr(script("timed_training"), "LEAST_TIMED_STEPS", 1)
    monkeypatch.setattr(script("transformers_peers"), "BATCH_SIZE", 2)
    monkeypatch.setattr(script("convergence"), "BATCH_SIZE", 2)
