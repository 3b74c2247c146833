"""Runs a suite from beginning to end."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from hf_detr.machine import describe

from .contest import Contestant, Entrant, measure
from .entrants import InOwnProcess, InThisProcess
from .options import BenchOptions
from .peaks import peaks
from .registry import Program, Suite

ROUNDS, QUICK_ROUNDS = 15, 3


def run_suite(
    program: Program, name: str, options: BenchOptions, tell: Callable[[dict[str, Any], dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure all comparisons of a suite.

    Args:
        program: the program that has the suite.
        name: the name of the suite.
        options: the options of the run.
        tell: the function that is called with each comparison as soon as it was measured, and the peaks of the
            machine.

    Returns:
        the record of the run, which JSON can hold.

    Raises:
        ValueError: there is no such suite, preset or device, or the suite has nothing to measure.
    """
    suite = program.suite(name)
    check(options)
    torch.set_num_threads(options.threads)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    record = {
        "suite": name,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "options": asdict(options) | {"rounds": rounds},
        **describe(options.device),
        "peaks": peaks(options.device, options.quick),
        "comparisons": [],
    }
    for comparison in suite.comparisons(options):
        measured = measure(comparison, options.device, rounds, partial(enter, suite, comparison.name, options))
        record["comparisons"].append(measured)
        tell(measured, record["peaks"])
    if not record["comparisons"]:
        raise ValueError(f"the suite {name} has nothing to measure with presets {options.presets}")
    return record


def enter(suite: Suite, comparison: str, options: BenchOptions, contestant: Contestant) -> Entrant:
    """Return a contestant in a process of its own, or in this process where quick numbers are enough."""
    if options.quick:
        return InThisProcess(contestant, options.device)
    return InOwnProcess(suite, comparison, contestant.name, options)


def check(options: BenchOptions) -> None:
    """Refuse options that cannot be run.

    Raises:
        ValueError: there is no such preset or device.
    """
    from hf_detr import available_presets

    if options.device not in ("cpu", "cuda"):
        raise ValueError(f"--device {options.device}: expected cpu or cuda")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device on this machine")
    unknown = [preset for preset in options.presets or () if preset not in available_presets()]
    if unknown:
        raise ValueError(f"there is no preset {unknown[0]!r}; `hf-detr presets` lists them")
