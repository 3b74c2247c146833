"""Running a suite from beginning to end."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any

import torch

from . import SUITES
from .contest import BenchOptions, Comparison, Contestant, Entrant, measure
from .entrants import InOwnProcess, InThisProcess
from .machine import describe, peaks

ROUNDS, QUICK_ROUNDS = 15, 3


def run_suite(
    suite: str, options: BenchOptions, tell: Callable[[dict[str, Any], dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure all comparisons of a suite.

    Args:
        suite: one of `SUITES`.
        options: what is asked for.
        tell: called with each comparison as soon as it was measured, and the peaks of the machine.

    Returns:
        the record of the run, which JSON can hold.

    Raises:
        ValueError: there is no such suite, preset or device.
    """
    set_threads(options.threads)
    check(suite, options)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    record = {
        "suite": suite,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "options": asdict(options) | {"rounds": rounds},
        **describe(options.device),
        "peaks": peaks(options.device, options.quick),
        "comparisons": [],
    }
    for comparison in comparisons_of(suite, options):
        measured = measure(comparison, options.device, rounds, partial(enter, suite, comparison.name, options))
        record["comparisons"].append(measured)
        tell(measured, record["peaks"])
    if not record["comparisons"]:
        raise ValueError(f"the suite {suite} has nothing to measure with presets {options.presets}")
    return record


def enter(suite: str, comparison: str, options: BenchOptions, contestant: Contestant) -> Entrant:
    """A process for each contestant, unless it should be quick."""
    if options.quick:
        return InThisProcess(contestant, options.device)
    return InOwnProcess(suite, comparison, contestant.name, options)


def comparisons_of(suite: str, options: BenchOptions) -> Iterator[Comparison]:
    """The comparisons of a suite; nothing is built before it is measured."""
    return import_module(f"hf_detr.benchmarking.suite_{suite}").comparisons(options)


def find_comparison(suite: str, name: str, options: BenchOptions) -> Comparison:
    """The comparison with a name."""
    return next(comparison for comparison in comparisons_of(suite, options) if comparison.name == name)


def set_threads(threads: int) -> None:
    """Let PyTorch use as many threads as stated, and our numba kernels with it."""
    torch.set_num_threads(threads)


def check(suite: str, options: BenchOptions) -> None:
    """Refuse what cannot be run.

    Raises:
        ValueError: there is no such suite, preset or device.
    """
    from hf_detr import available_presets

    if suite not in SUITES:
        raise ValueError(f"there is no suite {suite!r}; choose from {', '.join(SUITES)}")
    if options.device not in ("cpu", "cuda"):
        raise ValueError(f"--device {options.device}: expected cpu or cuda")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device on this machine")
    unknown = [preset for preset in options.presets or () if preset not in available_presets()]
    if unknown:
        raise ValueError(f"there is no preset {unknown[0]!r}; `hf-detr presets` lists them")
