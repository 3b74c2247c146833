"""Measures several ways to do the same work, which take turns."""

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
"""A function that does the work once. It may call its argument with the name of the part that has just ended."""

WHOLE = ""
ENOUGH_ROUNDS, ENOUGH_SECONDS = 3, 60.0
"""A comparison ends after this many rounds and seconds, however many rounds were asked for."""


class SkipContestant(Exception):
    """A contestant cannot take part here, for instance because a package is not installed. The message says why."""


class ExcusedError(Exception):
    """A contestant failed or was skipped in another process; its argument is what `excuse` said there."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a comparison.

    Attributes:
        name: the name of the contestant, unique within its comparison.
        build: makes all that is needed (on `options.device`) and returns the work. It may raise `SkipContestant`.
        dtype: the dtype of the arithmetic, by its name in torch. It decides with which peak of the machine the
            contestant is compared.
        count_flops: whether the work is run once under torch's counter, which sees convolutions, matrix products and
            attention.
    """

    name: str
    build: Callable[[], Work]
    dtype: str = "float32"
    count_flops: bool = False


@dataclass(frozen=True)
class Comparison:
    """A comparison of several ways to do the same work.

    Attributes:
        name: the name of the comparison, unique within its suite.
        contestants: the contestants, in the order in which they take turns.
        baseline: the name of the contestant with which all others are compared.
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
        """Return `flops` and `peak_memory_mib`, each None where it is not known."""

    def leave(self) -> None:
        """End it."""


def measure(
    comparison: Comparison, device: str, rounds: int, enter: Callable[[Contestant], Entrant]
) -> dict[str, Any]:
    """Measure a comparison. A contestant that fails or is skipped is reported as such, and the others go on.

    Every round runs all contestants one after the other, so that a noisy machine slows them alike. The result is the
    ratio of the times within a round: its median, and its quartiles as the spread.

    Args:
        comparison: the comparison to measure.
        device: "cpu" or "cuda".
        rounds: how often each contestant is measured at most.
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
    """Call a method of an entrant. An entrant that fails leaves the contest and gets its report; None is returned."""
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
    """Return medians and quartiles over rounds, of the seconds and of the ratio to the baseline of the same round."""
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
    """Return the operations of convolutions, matrix products and attention; a multiply and an add are two."""
    with FlopCounterMode(display=False, custom_mapping=packed_operators()) as counter:
        work(lambda name: None)
    return counter.get_total_flops()


def packed_operators() -> dict[Any, Callable[..., int]]:
    """Return counters of operators that torch does not count: the packed layers of acceleration/onednn_packing.py."""
    names = ("_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_")
    return {getattr(torch.ops.mkldnn, name): packed_flops for name in names if hasattr(torch.ops.mkldnn, name)}


def packed_flops(*shapes: Any, out_shape: torch.Size, **options: Any) -> int:
    """Return the operations of a packed layer: each output sums over all dimensions but the first of the weights."""
    leading = list(takewhile(lambda shape: isinstance(shape, torch.Size) and len(shape) > 1, shapes))
    return 2 * math.prod(out_shape) * math.prod(leading[-1][1:])


def excuse(error: Exception) -> dict[str, str]:
    """Return in one line why a contestant has no time."""
    if isinstance(error, ExcusedError):
        return error.args[0]
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SkipContestant):
        return {"skipped": text}
    return {"failed": f"{type(error).__name__}: {text}"}
