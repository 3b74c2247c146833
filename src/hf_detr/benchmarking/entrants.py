"""Runs contestants that take turns, each in a process of its own.

In one process the first contestants change the times of later ones: memory that they leave in the allocator of glibc
spares the later ones page faults, which they would have in a program of their own. The detectors of transformers were
1.4 times as fast after ours as in a fresh process.
"""

import multiprocessing
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from .contest import Contestant, ExcusedError, count_flops, excuse, timed
from .options import BenchOptions
from .registry import Suite

_STATUS = Path("/proc/self/status")


class InThisProcess:
    """A contestant that runs in the process that measures it, for quick looks and tests."""

    def __init__(self, contestant: Contestant, device: str):
        self.contestant, self.device = contestant, device
        self.work: Any = None
        self.memory_before = 0.0

    def prepare(self) -> None:
        """See `Entrant`."""
        self.work = self.contestant.build()
        self.memory_before = peak_mib(self.device)
        timed(self.work, self.device)

    def turn(self) -> dict[str, float]:
        """See `Entrant`."""
        return timed(self.work, self.device)

    def findings(self) -> dict[str, Any]:
        """See `Entrant`. The memory is not reported, because other contestants share the process."""
        return {"flops": count_flops(self.work) if self.contestant.count_flops else None, "peak_memory_mib": None}

    def leave(self) -> None:
        """See `Entrant`."""
        self.work = None


class Alone(InThisProcess):
    """A contestant that has its process to itself, and so can say what memory it needs.

    `peak_memory_mib` has two values: the most memory that the `process` held, and the part of it that `work` added
    after everything was built. On CUDA it is memory of the device, as PyTorch allocates it.
    """

    def findings(self) -> dict[str, Any]:
        """See `Entrant`."""
        peak = peak_mib(self.device)
        memory = {"process": round(peak, 1), "work": round(peak - self.memory_before, 1)}
        return super().findings() | {"peak_memory_mib": memory}


class InOwnProcess:
    """A contestant in a process of its own, which waits for its turns.

    Args:
        suite: the suite that makes the comparison.
        comparison, contestant: the names by which the process finds the contestant.
        options: the options of the run.
    """

    def __init__(self, suite: Suite, comparison: str, contestant: str, options: BenchOptions):
        context = multiprocessing.get_context("spawn")
        self.pipe, others = context.Pipe()
        self.process = context.Process(target=serve, args=(others, suite, comparison, contestant, options))
        self.process.start()
        others.close()

    def ask(self, question: str) -> Any:
        """Return what the method of that name returns in the process."""
        try:
            self.pipe.send(question)
            answer, excuses = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise RuntimeError(f"its process ended with exit code {self.process.exitcode}") from None
        if excuses:
            raise ExcusedError(excuses)
        return answer

    def prepare(self) -> None:
        """See `Entrant`."""
        self.ask("prepare")

    def turn(self) -> dict[str, float]:
        """See `Entrant`."""
        return self.ask("turn")

    def findings(self) -> dict[str, Any]:
        """See `Entrant`."""
        return self.ask("findings")

    def leave(self) -> None:
        """See `Entrant`."""
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, suite: Suite, comparison: str, contestant: str, options: BenchOptions) -> None:
    """Answer questions until the other end of the pipe is closed."""
    torch.set_num_threads(options.threads)
    found = suite.find(comparison, options)
    alone = Alone(next(entry for entry in found.contestants if entry.name == contestant), options.device)
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        reply: tuple[Any, dict[str, str] | None]
        try:
            reply = getattr(alone, question)(), None
        except Exception as error:
            reply = None, excuse(error)
        pipe.send(reply)


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
