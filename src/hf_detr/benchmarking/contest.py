"""Measuring several ways to do the same work, interleaved in one process."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .machine import dtypes
from .memory import peak_memory_of

Lap = Callable[[str], None]
Work = Callable[[Lap], Any]
"""Does the work once. It may call its argument with the name of the part of the work that has just ended."""

WHOLE = ""
ENOUGH_ROUNDS, ENOUGH_SECONDS = 3, 60.0
"""After so many rounds that took so long together, a comparison is over, however many rounds were asked for."""


class SkipContestant(Exception):
    """A contestant cannot take part here, for instance because a package is not installed; says why."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What a suite is asked for.

    Attributes:
        quick: small sizes and few rounds, to see that everything runs; the numbers mean little.
        presets: the presets to measure, where a suite is about presets; None for those of the suite.
        batches: the numbers of images to measure at once, where a suite varies them; None for those of the suite.
        threads: of PyTorch.
        device: "cpu" or "cuda".
        rounds: how often each contestant is measured at most (see `ENOUGH_SECONDS`); None for the usual number.
        compile: also measure compiled models.
        memory: also measure the peak memory of each contestant, in a process of its own.
    """

    quick: bool = False
    presets: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None
    threads: int = 1
    device: str = "cpu"
    rounds: int | None = None
    compile: bool = False
    memory: bool = True


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
        measure_memory: peak memory says something here.
    """

    name: str
    contestants: Sequence[Contestant]
    baseline: str
    axis: tuple[str, float] | None = None
    measure_memory: bool = False


def measure(comparison: Comparison, suite: str, options: BenchOptions, rounds: int) -> dict[str, Any]:
    """Measure a comparison; a contestant that fails or is skipped is reported as such and stops nobody else.

    Every round runs all contestants one after the other, so that a noisy machine slows them alike. What counts is the
    ratio of the times within a round: its median, and its quartiles as the spread.
    """
    works, reports = {}, {}
    for contestant in comparison.contestants:
        try:
            if contestant.dtype not in dtypes(options.device):
                raise SkipContestant(f"this device has no instructions for {contestant.dtype}")
            work = contestant.build()
            timed(work, options.device)  # compiles, and fills caches and allocators
            flops = count_flops(work) if contestant.count_flops else None
        except Exception as error:
            reports[contestant.name] = {"name": contestant.name, **excuse(error)}
            continue
        works[contestant.name] = work
        reports[contestant.name] = {"name": contestant.name, "dtype": contestant.dtype, "flops": flops}
    times = run_rounds(works, reports, options.device, rounds)
    for name, laps in times.items():
        reports[name] |= statistics_of(laps, times.get(comparison.baseline))
    works.clear()
    gc.collect()
    if options.memory and comparison.measure_memory:
        for name in times:
            reports[name]["peak_memory_mib"] = peak_memory_of(suite, comparison.name, name, options)
    return {
        "name": comparison.name,
        "baseline": comparison.baseline,
        "axis": comparison.axis,
        "rounds": max(map(len, times.values()), default=0),
        "contestants": [reports[contestant.name] for contestant in comparison.contestants],
    }


def run_rounds(
    works: dict[str, Work], reports: dict[str, dict], device: str, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Return the laps of each round by contestant, without those that failed on the way (they get their report)."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= ENOUGH_ROUNDS and time.perf_counter() - start > ENOUGH_SECONDS:
            break
        for name in list(times):
            try:
                times[name].append(timed(works[name], device))
            except Exception as error:
                del times[name]
                reports[name] |= excuse(error)
    return times


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
    """What torch does not count by itself: the layers of optimised models (see deployment/packing.py)."""
    names = ("_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_")
    return {getattr(torch.ops.mkldnn, name): packed_flops for name in names if hasattr(torch.ops.mkldnn, name)}


def packed_flops(*shapes: Any, out_shape: torch.Size, **options: Any) -> int:
    """Each output is a sum over all but the first dimension of the weights; they stand before the bias or None."""
    leading = list(takewhile(lambda shape: isinstance(shape, torch.Size) and len(shape) > 1, shapes))
    return 2 * math.prod(out_shape) * math.prod(leading[-1][1:])


def excuse(error: Exception) -> dict[str, str]:
    """Why a contestant has no time: one line."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SkipContestant):
        return {"skipped": text}
    return {"failed": f"{type(error).__name__}: {text}"}
