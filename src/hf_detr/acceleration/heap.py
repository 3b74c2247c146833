"""Keeps freed memory with the process for the next pass, on CPUs with the allocator of glibc.

The maps of a detector are blocks of tens of megabytes. By default glibc returns each block to the system when it is
freed. The next pass then takes new pages, which the system has to fill with zeros: a large part of the time of a
forward pass.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Lock

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Numbers of the parameters of mallopt, as in malloc.h."""
_DEFAULT_MMAP_MAX = 65536
"""The most blocks that glibc takes from the system one by one, unless told otherwise."""
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""The size in bytes from which on glibc takes a block from the system. By default it starts low and rises, up to this
value, as large blocks are freed. Setting any of the parameters stops the rise, so this module sets the value that a
program that handles images would have reached."""
_LARGEST_TRIM_THRESHOLD = 2 * _LARGEST_MMAP_THRESHOLD
"""The bytes at the free end of the heap from which on glibc returns them. By default it rises with the value above, to
twice as much."""
_MOST_KEPT = 2**31 - 1
"""The most bytes at the free end of the heap that are kept. It is the largest number that mallopt takes."""
_LEAST_KEPT = 2**20
"""Bytes at the free end of the heap that stay outside of the reserve; a smaller reserve is not worth keeping."""


class Mallinfo2(ctypes.Structure):
    """The state of glibc's heap, with the fields of malloc.h."""

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
    """A part of the heap that nothing else gets between two passes.

    While the reserve is in use, all blocks come from the heap, however large, and freed blocks stay there. When the
    last user leaves, the free end of the heap becomes one allocated block. That block is freed when the next user
    comes. So the rest of the program allocates as it always does.
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
        """Free the block, so that the allocations of this user are made from it."""
        self.library.mallopt(_MMAP_MAX, 0)
        self.library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
        self.library.free(self.block)
        self.block = None

    def close(self) -> None:
        """Allocate the free end of the heap as one block."""
        size = min(self.library.mallinfo2().keepcost, _MOST_KEPT)
        if size > _LEAST_KEPT:
            self.block = self.library.malloc(size - _LEAST_KEPT)
        self.library.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
        self.library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)


@cache
def reserve() -> Reserve | None:
    """Return the reserve of this process, or None where the allocator is not glibc's or glibc is older than 2.33."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = Mallinfo2
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    return Reserve(library)


@contextmanager
def freed_memory_is_kept() -> Iterator[None]:
    """Let memory that is allocated and freed inside be used again, here and in later calls.

    Up to 2 GiB stay with the process, like the cache of PyTorch on a GPU. This does nothing where there is no glibc.
    """
    kept = reserve()
    with nullcontext() if kept is None else kept.used():
        yield
