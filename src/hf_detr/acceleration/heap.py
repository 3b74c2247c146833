"""Freed memory that stays with the process, on CPUs with the allocator of glibc.

The maps of a detector are blocks of tens of megabytes. By default glibc returns each to the system when it is freed,
and the next pass takes new pages, which the system has to zero: a large part of the time of a forward pass.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # the parameters of mallopt, as in malloc.h
_DEFAULT_MMAP_MAX = 65536
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc raises this threshold by itself up to here when large blocks come and go, and the next to twice as much, until
somebody sets one of them; so these are what a program that handles images has anyway."""
_LARGEST_TRIM_THRESHOLD = 2 * _LARGEST_MMAP_THRESHOLD
_MOST_KEPT = 2**31 - 1
"""Bytes; the largest number that mallopt takes."""
_LEAST_KEPT = 2**20


class Mallinfo2(ctypes.Structure):
    """What glibc tells about its heap, as in malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class Reserve:
    """Memory of the heap that nobody else gets between two passes.

    While it is in use, all blocks come from the heap, however large, and freed ones stay there. When the last user
    leaves, the free end of the heap becomes one allocated block, which is freed when the next one comes. So the rest
    of the program allocates as it always does.
    """

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self.lock = Lock()
        self.users = 0
        self.block: int | None = None
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Allocate from the reserve; several threads may do so at once."""
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.open()
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    self.close()

    def open(self) -> None:
        """Give the block to whoever allocates."""
        self.library.mallopt(_MMAP_MAX, 0)
        self.library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
        self.library.free(self.block)
        self.block = None

    def close(self) -> None:
        """Take what is free at the end of the heap."""
        size = min(self.library.mallinfo2().keepcost, _MOST_KEPT)
        if size > _LEAST_KEPT:
            self.block = self.library.malloc(size - _LEAST_KEPT)
        self.library.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
        self.library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)


@cache
def reserve() -> Reserve | None:
    """The reserve of this process; None where the allocator is not that of glibc 2.33 or newer."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = Mallinfo2
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    return Reserve(library)


@contextmanager
def freed_memory_is_kept() -> Iterator[None]:
    """Let what is allocated and freed inside be used again, here and in later calls.

    Up to 2 GiB stay with the process, like the cache of PyTorch on a GPU. Does nothing where there is no glibc.
    """
    if reserve() is None:
        yield
        return
    with reserve().used():
        yield
