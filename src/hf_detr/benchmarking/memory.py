"""Peak memory of one contestant, alone in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .contest import BenchOptions

_STATUS = Path("/proc/self/status")


def peak_memory_of(suite: str, comparison: str, contestant: str, options: BenchOptions) -> dict[str, float] | None:
    """Return MiB: `process` held at most, of which `work` came on top of what it held when everything was built.

    On CUDA it is memory of the device as PyTorch allocates it. None where the process failed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run_alone, suite, comparison, contestant, options).result()
        except Exception:
            return None  # the times are worth keeping: memory is less certain than they are, and may have run out


def run_alone(suite: str, comparison: str, contestant: str, options: BenchOptions) -> dict[str, float]:
    """Find a contestant by name, run it twice, and return what `peak_memory_of` does."""
    from .suites import find_comparison, set_threads

    set_threads(options.threads)
    found = find_comparison(suite, comparison, options)
    work = next(entry for entry in found.contestants if entry.name == contestant).build()
    before = peak_mib(options.device)
    for _ in range(2):
        work(lambda name: None)
    peak = peak_mib(options.device)
    return {"process": round(peak, 1), "work": round(peak - before, 1)}


def peak_mib(device: str) -> float:
    """Return the most memory that this process held since it started its program.

    Linux hands `ru_maxrss` on to programs started from a larger process, so its own file is read there.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kibibytes elsewhere
