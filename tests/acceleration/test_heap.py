"""Freed memory that stays with the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_detr.acceleration.heap import freed_memory_is_kept, reserve

pytestmark = pytest.mark.skipif(reserve() is None, reason="the allocator is not glibc's")

FAULTS = """
import resource
import torch
from hf_detr.acceleration.heap import freed_memory_is_kept

def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

layers = torch.nn.Sequential(*[torch.nn.Conv2d(*channels, 3, padding=1) for channels in ((3, 48), (48, 40), (40, 64))])

@torch.no_grad()
def work():
    layers(torch.ones(1, 3, 640, 512))

def kept():
    with freed_memory_is_kept():
        work()

work()
others = faults(work)
kept()
first = faults(kept)
between = faults(work)
second = faults(kept)
print(others, first, between, second)
"""

LITTLE = """
import ctypes
import resource
from hf_detr.acceleration.heap import freed_memory_is_kept, reserve

with freed_memory_is_kept():
    ctypes.create_string_buffer(64 * 2**20)
kept = reserve().block is not None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(20):
    with freed_memory_is_kept():
        pass
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(),
    reason="the system's pages are too large to be counted",
)
def test_pages_are_reused_and_others_do_not_notice():
    """Maps of 50 to 80 MB: new pages each time elsewhere, before and after; few where memory is kept."""
    output = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    others, first, between, second = map(int, output.split())
    assert others > 1000
    assert first < others / 3
    assert second < others / 3
    assert between > others / 3


def test_nested_uses_and_exceptions_leave_it_closed():
    with freed_memory_is_kept(), freed_memory_is_kept():
        assert reserve().users == 2
    with pytest.raises(KeyError), freed_memory_is_kept():
        raise KeyError
    assert reserve().users == 0


def test_little_is_kept_of_little():
    """In a process of its own: in a heap with large holes, the block would come from one of them, not from its end."""
    output = subprocess.run([sys.executable, "-c", LITTLE], capture_output=True, text=True, check=True).stdout
    kept, kibibytes_more = output.split()
    assert kept == "True"
    assert int(kibibytes_more) < 1024
