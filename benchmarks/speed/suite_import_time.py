"""The suite that measures how long importing this package takes."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from hf_detr.benchmarking.contest import Comparison, Contestant, Work
from hf_detr.benchmarking.options import BenchOptions

BASE = "import torch, transformers"
STATEMENTS = (
    BASE,
    f"{BASE}, hf_detr",
    f"{BASE}; from hf_detr import HfDetrForObjectDetection",
    f"{BASE}; from transformers import DetrForObjectDetection",
)


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield fresh interpreters from start to end. The result is the seconds that they take more than the baseline."""
    contestants = [Contestant(statement, partial(interpreter, statement)) for statement in STATEMENTS]
    yield Comparison("a fresh interpreter", contestants, BASE)


def interpreter(statement: str) -> Work:
    """Return the work of running a statement in an interpreter of its own."""
    return lambda lap: subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
