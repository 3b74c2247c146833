"""Memory of a process that sees ever new shapes."""

import os
import subprocess
import sys

import pytest

from hf_detr.acceleration.heap import reserve
from hf_detr.acceleration.onednn_packing import has_packed_operators
from hf_detr.acceleration.primitive_caches import BOUNDS, bound_primitive_caches

GROWTH = """
import hf_detr
import torch
from hf_detr.acceleration.heap import reserve

torch.set_num_threads(1)
weights = [torch.zeros(width, 32) for width in (32, 40, 48)]
convolution = torch.nn.Conv2d(4, 4, 3).requires_grad_(False)
used = []
for shape in range(8, 408):
    for weight in weights:
        torch.ops.mkldnn._linear_pointwise(torch.zeros(shape, 32), weight, None, "none", [], "")
    convolution(torch.zeros(1, 4, 8, shape))
    if shape in (207, 407):
        used.append(reserve().library.mallinfo2().uordblks)
print(used[1] - used[0])
"""


@pytest.mark.skipif(
    reserve() is None or not has_packed_operators(), reason="needs glibc's allocator and PyTorch with oneDNN"
)
def test_memory_does_not_grow_with_the_number_of_shapes():
    """Four primitives a shape, so the cache of 512 is full after 128 shapes, and 200 more must add nothing.

    Without the bounds the second 200 shapes added 120 MB. The 8 MB allowed are a fifteenth of that, and leave room
    for what Python and torch allocate for themselves.
    """
    environment = {name: value for name, value in os.environ.items() if name not in BOUNDS}
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 8 * 2**20


def test_what_the_user_has_set_stays():
    environment = {"LRU_CACHE_CAPACITY": "7", "DNNL_PRIMITIVE_CACHE_CAPACITY": "9"}
    before = dict(environment)
    bound_primitive_caches(environment)
    assert environment == before
    environment.clear()
    bound_primitive_caches(environment)
    assert environment == BOUNDS
