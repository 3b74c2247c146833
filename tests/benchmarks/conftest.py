"""The scripts of `benchmarks/`, importable as when one of them is started."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of `benchmarks/` by name."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def two_steps(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trainings as short as they can be: one step to warm up and one to time, two images a batch."""
    monkeypatch.setattr(script("timed_training"), "WARM_UP_STEPS", 1)
    monkeypatch.setattr(script("timed_training"), "LEAST_TIMED_STEPS", 1)
    monkeypatch.setattr(script("peers"), "BATCH_SIZE", 2)
    monkeypatch.setattr(script("convergence"), "BATCH_SIZE", 2)
