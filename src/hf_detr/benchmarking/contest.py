"""Measuring several ways to do the same work, in turns."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from .peaks import dtypes

Lap = Callable[[str], None]
Work = Callable[[Lap], Any]
"""Does the work once. It may call its argument with the name of the part of the work that has just ended."""

WHOLE = ""
ENOUGH_ROUNDS, ENOUGH_SECONDS = 3, 60.0
"""After so many rounds that took so long together, a comparison is over, however many rounds were asked for."""


class SkipContestant(Exception):
    """A contestant cannot take part here, for instance because a package is not installed; says why."""


class ExcusedError(Exception):
    """A contestant failed or was skipped in another process; its argument is what `excuse` said there."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a comparison.

    Attributes:
        name: unique within its comparison.
        build: makes all that is needed (on `options.device`) and returns the work. It may raise `SkipContestant`.
        dtype: of the arithmetic, by its name in torch; decides which peak of the machine it is held against.
        count_flops: run the work once under torch's counter. It sees convolutions, matrix products and attention.
    """

    name: str
    build: Callable[[], Work]
    dtype: str = "float32"
    count_flops: bool = False


@dataclass(frozen=True)
class Comparison:
    """The same work done in several ways.

    Attributes:
        name: unique within its suite.
        contestants: in the order in which they take turns.
        baseline: the name of the one that all are compared with.
        axis: for a curve, the name of what varies and its value here.
    """

    name: str
    contestants: Sequence[Contestant]
    baseline: str
    axis: tuple[str, float] | None = None


class Entrant(Protocol):
    """A contestant of a comparison. `excuse` knows what its methods raise."""

    def prepare(self) -> None:
        """Build what is needed and do the work once: that compiles, and fills caches and allocators."""

    def turn(self) -> dict[str, float]:
        """Do the work once; return what `timed` does."""

    def findings(self) -> dict[str, Any]:
        """Return what is known at the end besides times: `flops` and `peak_memory_mib`, or None for each."""

    def leave(self) -> None:
        """End it."""


def measure(
    comparison: Comparison, device: str, rounds: int, enter: Callable[[Contestant], Entrant]
) -> dict[str, Any]:
    """Measure a comparison; a contestant that fails or is skipped is reported as such and stops nobody else.

    Every round runs all contestants one after the other, so that a noisy machine slows them alike. What counts is the
    ratio of the times within a round: its median, and its quartiles as the spread.

    Args:
        comparison: what is compared.
        device: "cpu" or "cuda".
        rounds: how often each is measured at most.
        enter: makes a contestant ready to take turns; see `entrants.py`.
    """
    reports: dict[str, dict[str, Any]] = {}
    entrants: dict[str, Entrant] = {}
    try:
        for contestant in comparison.contestants:
            name = contestant.name
            reports[name] = {"name": name, "dtype": contestant.dtype}
            if contestant.dtype not in dtypes(device):
                reports[name] |= {"skipped": f"this device has no instructions for {contestant.dtype}"}
                continue
            entrants[name] = enter(contestant)  # a process imports while the next ones start
        for name in list(entrants):
            attempt(entrants, name, reports, "prepare")
        times = run_rounds(entrants, reports, rounds)
        for name, laps in times.items():
            reports[name] |= attempt(entrants, name, reports, "findings") or {}
            reports[name] |= statistics_of(laps, times.get(comparison.baseline))
    finally:
        for entrant in entrants.values():
            entrant.leave()
    return {
        "name": comparison.name,
        "baseline": comparison.baseline,
        "axis": comparison.axis,
        "rounds": max(map(len, times.values()), default=0),
        "contestants": [reports[contestant.name] for contestant in comparison.contestants],
    }


def attempt(entrants: dict[str, Entrant], name: str, reports: dict[str, dict], method: str) -> Any:
    """Call a method of an entrant; one that fails leaves, gets its report, and returns None."""
    try:
        return getattr(entrants[name], method)()
    except Exception as error:
        entrants.pop(name).leave()
        reports[name] |= excuse(error)
        return None


def run_rounds(
    entrants: dict[str, Entrant], reports: dict[str, dict], rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Return the laps of each round by contestant, without those that failed on the way (they get their report)."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in entrants}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= ENOUGH_ROUNDS and time.perf_counter() - start > ENOUGH_SECONDS:
            break
        for name in list(entrants):
            laps = attempt(entrants, name, reports, "turn")
            if laps is not None:
                times[name].append(laps)
    return {name: laps for name, laps in times.items() if name in entrants}


def timed(work: Work, device: str) -> dict[str, float]:
    """Do the work once; return the seconds of its parts by name, and of the whole under "".

    On CUDA the parts are measured by events in the stream, so that they do not wait for each other, and the whole by
    the clock, from an idle device to an idle device.
    """
    on_cuda = device == "cuda"
    marks: list[tuple[str, Any]] = []

    def lap(name: str) -> None:
        if on_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            marks.append((name, event))
        else:
            marks.append((name, time.perf_counter()))

    if on_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    lap(WHOLE)
    work(lap)
    if on_cuda:
        torch.cuda.synchronize()
    seconds = {WHOLE: time.perf_counter() - start}
    for (_, before), (name, after) in pairwise(marks):
        passed = before.elapsed_time(after) / 1e3 if on_cuda else after - before
        seconds[name] = seconds.get(name, 0.0) + passed
    return seconds


def statistics_of(laps: list[dict[str, float]], baseline: list[dict[str, float]] | None) -> dict[str, Any]:
    """Medians and quartiles over rounds: of the seconds, and against the baseline of the same round."""
    whole = [lap[WHOLE] for lap in laps]
    result = {
        "seconds": statistics.median(whole),
        "seconds_quartiles": quartiles(whole),
        "parts": {name: statistics.median(lap[name] for lap in laps) for name in laps[0] if name != WHOLE},
    }
    if baseline is None:
        return result
    pairs = [(theirs[WHOLE], own) for theirs, own in zip(baseline, whole, strict=True)]
    ratios = [theirs / own for theirs, own in pairs]
    return result | {
        "times_as_fast": statistics.median(ratios),
        "times_as_fast_quartiles": quartiles(ratios),
        "extra_seconds": statistics.median(own - theirs for theirs, own in pairs),
    }


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def count_flops(work: Work) -> int:
    """Operations of the convolutions, matrix products and attention; a multiplication and an addition are two."""
    with FlopCounterMode(display=False, custom_mapping=packed_operators()) as counter:
        work(lambda name: None)
    return counter.get_total_flops()


def packed_operators() -> dict[Any, Callable[..., int]]:
    """What torch does not count by itself: the layers of optimised models (see acceleration/onednn_packing.py)."""
    names = ("_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_")
    return {getattr(torch.ops.mkldnn, name): packed_flops for name in names if hasattr(torch.ops.mkldnn, name)}


def packed_flops(*shapes: Any, out_shape: torch.Size, **options: Any) -> int:
    """Each output is a sum over all but the first dimension of the weights; they stand before the bias or None."""
    leading = list(takewhile(lambda shape: isinstance(shape, torch.Size) and len(shape) > 1, shapes))
    return 2 * math.prod(out_shape) * math.prod(leading[-1][1:])


def excuse(error: Exception) -> dict[str, str]:
    """Why a contestant has no time: one line."""
    if isinstance(error, ExcusedError):
        return error.args[0]
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SkipContestant):
        return {"skipped": text}
    return {"failed": f"{type(error).__name__}: {text}"}
