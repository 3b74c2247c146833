"""The processes of a distributed run, as `torchrun` and `accelerate launch` number them; without either, there is one.

Rank 0 looks at files, decides and prints; the other ranks are told what it decided. An error is printed once,
whichever rank meets it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

Result = TypeVar("Result")

REPORT_TIMEOUT = timedelta(seconds=10)


def rank() -> int:
    """Return the number of this process among all."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the number of this process among the processes of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(backend: str | None = None, timeout: timedelta = timedelta(hours=2)) -> Iterator[None]:
    """Let the ranks talk to each other inside the block; with one process there is nothing to do.

    Args:
        backend: the backend of `torch.distributed`; by default the one of this machine's accelerator, or gloo without
            one.
        timeout: how long a rank waits for the others. They wait while rank 0 downloads data and models.
    """
    if world_size() == 1:
        yield
        return
    import torch

    if backend is None:
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        backend = torch.distributed.get_default_backend_for_device(device.type)
        if device.type != "cpu":
            torch.accelerator.set_device_index(local_rank())
    torch.distributed.init_process_group(backend, timeout=timeout)
    yield
    # After an error the group is not closed: other ranks may still wait, and would fail here and hide what was wrong.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def from_rank_0(work: Callable[[], Result]) -> Result:
    """Do `work` on rank 0 and return its result, which must be picklable, on every rank.

    Raises:
        Exception: the exception that `work` raised on rank 0, on every rank.
    """
    if world_size() == 1:
        return work()
    import torch

    outcome: list = [None, None]
    if rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result


@contextmanager
def one_rank_first() -> Iterator[None]:
    """Run the block on the first rank of each machine before the others, which then find downloads complete."""
    if local_rank() > 0:
        wait_for_all()
    yield
    if local_rank() == 0:
        wait_for_all()


def first_to_report(message: str) -> bool:
    """Return whether this rank is the first with `message`, so that a message of all ranks is printed once."""
    if world_size() == 1:
        return True
    import torch

    key = "hf_detr/reported/" + hashlib.sha256(message.encode()).hexdigest()
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = torch.distributed.TCPStore(address, port, is_master=False, timeout=REPORT_TIMEOUT)
        return store.add(key, 1) == 1
    except (RuntimeError, KeyError):  # nobody counts any more, and a message printed twice is better than none
        return True


def wait_for_all() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()
