"""Multi-scale deformable attention sampling on a CPU: loops compiled by numba.

What makes it fast: the rows of `value` are read where they lie, nothing of the size of all samples is ever written,
and a query's samples of one head stay in the first cache. Threads divide the queries in the forward pass and the
(image, head) pairs in the backward pass, where each of them owns the rows it adds to: no atomics, and the same bits
whatever the number of threads.

Shapes: B batch, Q queries, S tokens, N heads, D width of a head, L levels, P points.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    import numba
    from numba.extending import overload
except ImportError as error:
    raise ImportError("the CPU form of deformable attention needs numba") from error

ONE = np.float32(1)  # typed, so that float32 arithmetic stays float32
HALF = np.float32(0.5)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code, made at the first call and kept on disk for the next process where a folder can be written."""
    # Sums may be reordered into vectors, but NaN and infinity keep their meaning.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package nor the home folder can be written
        return numba.njit(function, **options)


def _number(stored):
    """A stored value as the kernels compute with it: bfloat16, kept as its bits, becomes float32."""


@overload(_number, inline="always")
def _number_of(stored):
    if isinstance(stored, numba.types.Integer):
        return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)
    return lambda stored: stored


@_compiled
def _cell(position, size):
    """The first of the two pixels around a position, -2 or `size` when both are outside, and the second's share."""
    first = np.floor(position)
    share = position - first
    if not first > -2:  # also NaN, which the share carries on
        return -2, share
    return np.int64(min(first, np.float32(size))), share


@_compiled
def _locate(spatial_shapes, locations, rows, shares, inside):
    """Fills, for each of the L * P samples of one query and head, what the three other arguments are named after.

    rows (L * P, 4): tokens of the corners (top left, top right, bottom left, bottom right), kept inside the map;
    shares (L * P, 2): the right column's and the bottom row's; inside (L * P, 4): 1, or 0 for corners off the map.
    """
    start = 0
    for level in range(locations.shape[0]):
        height, width = spatial_shapes[level]
        for point in range(locations.shape[1]):
            sample = level * locations.shape[1] + point
            left, shares[sample, 0] = _cell(locations[level, point, 0] * np.float32(width) - HALF, width)
            top, shares[sample, 1] = _cell(locations[level, point, 1] * np.float32(height) - HALF, height)
            for corner in range(4):
                column, row = left + corner % 2, top + corner // 2
                inside[sample, corner] = np.float32(0 <= column < width and 0 <= row < height)
                rows[sample, corner] = start + min(max(row, 0), height - 1) * width + min(max(column, 0), width - 1)
        start += height * width


@_compiled
def _forward(value, spatial_shapes, locations, weights, output, first, last):
    """Output rows `first` to `last` of the B * Q queries; locations, weights and output have B and Q as one axis."""
    batch, _, heads, head_width = value.shape
    samples = weights.shape[2] * weights.shape[3]
    queries = weights.shape[0] // batch
    rows = np.empty((samples, 4), np.uint64)
    shares, inside = np.empty((samples, 2), weights.dtype), np.empty((samples, 4), weights.dtype)
    for query in range(first, last):
        tokens = value[query // queries]
        for head in range(heads):
            _locate(spatial_shapes, locations[query, head], rows, shares, inside)
            sample_weights = weights[query, head].reshape(samples)
            total = output[query, head]
            total[:] = 0
            for sample in range(samples):
                x, y = shares[sample]
                weight = sample_weights[sample]
                weight_0 = weight * (ONE - y) * (ONE - x) * inside[sample, 0]
                weight_1 = weight * (ONE - y) * x * inside[sample, 1]
                weight_2 = weight * y * (ONE - x) * inside[sample, 2]
                weight_3 = weight * y * x * inside[sample, 3]
                value_0, value_1 = tokens[rows[sample, 0], head], tokens[rows[sample, 1], head]
                value_2, value_3 = tokens[rows[sample, 2], head], tokens[rows[sample, 3], head]
                for d in range(head_width):
                    total[d] += (
                        weight_0 * _number(value_0[d])
                        + weight_1 * _number(value_1[d])
                        + weight_2 * _number(value_2[d])
                        + weight_3 * _number(value_3[d])
                    )


@_compiled
def _backward(value, spatial_shapes, locations, weights, gradient, to_value, to_locations, to_weights, first, last):
    """Gradients of the (image, head) pairs `first` to `last`; adds to `to_value`, fills the two others."""
    batch, _, heads, head_width = value.shape
    levels, points = weights.shape[2:]
    queries = weights.shape[0] // batch
    rows = np.empty((levels * points, 4), np.uint64)
    shares, inside = np.empty((levels * points, 2), value.dtype), np.empty((levels * points, 4), value.dtype)
    dots = np.empty(4, value.dtype)
    for pair in range(first, last):
        image, head = pair // heads, pair % heads
        for query in range(image * queries, (image + 1) * queries):
            _locate(spatial_shapes, locations[query, head], rows, shares, inside)
            received = gradient[query, head]
            for sample in range(levels * points):
                level, point = sample // points, sample % points
                x, y = shares[sample]
                weight = weights[query, head, level, point]
                for corner in range(4):
                    share = (x if corner % 2 else ONE - x) * (y if corner // 2 else ONE - y)
                    scale = weight * share * inside[sample, corner]
                    read = value[image, rows[sample, corner], head]
                    added = to_value[image, rows[sample, corner], head]
                    dot = x - x
                    for d in range(head_width):
                        dot += received[d] * read[d]
                    for d in range(head_width):
                        added[d] += scale * received[d]
                    dots[corner] = dot * inside[sample, corner]
                top = (ONE - x) * dots[0] + x * dots[1]
                bottom = (ONE - x) * dots[2] + x * dots[3]
                to_weights[query, head, level, point] = (ONE - y) * top + y * bottom
                slope_x = (ONE - y) * (dots[1] - dots[0]) + y * (dots[3] - dots[2])
                height, width = spatial_shapes[level]
                to_locations[query, head, level, point, 0] = weight * slope_x * np.float32(width)
                to_locations[query, head, level, point, 1] = weight * (bottom - top) * np.float32(height)


@cache
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process, since a forked child inherits the object but not its threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="deformable")


def _in_threads(kernel: Callable[..., None], count: int, *arrays: np.ndarray) -> None:
    """Runs `kernel(*arrays, first, last)` over 0..count in as many threads as PyTorch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        kernel(*arrays, 0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    workers = _workers(os.getpid(), threads)
    list(workers.map(lambda first, last: kernel(*arrays, first, last), bounds, bounds[1:]))


def _array(tensor: Tensor, *shape: int) -> np.ndarray:
    return tensor.detach().reshape(shape or tensor.shape).contiguous().numpy()


def _bits(value: Tensor, dtype: torch.dtype) -> np.ndarray:
    """The values in the precision of the arithmetic; bfloat16 as it is, which `_number` reads."""
    if value.dtype == torch.bfloat16 and dtype == torch.float32:
        return _array(value.contiguous().view(torch.int16)).view(np.uint16)
    return _array(value.to(dtype))


def _arguments(value: np.ndarray, shapes: list[int], locations: Tensor, weights: Tensor) -> tuple[np.ndarray, ...]:
    spatial_shapes = np.array(shapes, dtype=np.int64).reshape(-1, 2)
    return (
        value,
        spatial_shapes,
        _array(locations.flatten(0, 1)),
        _array(weights.flatten(0, 1)),
    )


def forward(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The kernel behind the `compiled` form on a CPU; see `fused` in deformable.py."""
    output = weights.new_empty(locations.shape[0] * locations.shape[1], *value.shape[2:])
    arguments = _arguments(_bits(value, weights.dtype), shapes, locations, weights)
    _in_threads(_forward, len(output), *arguments, output.numpy())
    return output.view(*locations.shape[:2], -1).to(value.dtype)


def backward(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for value, locations and weights from the one for the output, (B, Q, N * D)."""
    batch, _, heads, head_width = value.shape
    to_value = torch.zeros(value.shape, dtype=weights.dtype)
    to_locations = torch.empty(locations.shape, dtype=weights.dtype)
    to_weights = torch.empty(weights.shape, dtype=weights.dtype)
    _in_threads(
        _backward,
        batch * heads,
        *_arguments(_array(value.to(weights.dtype)), shapes, locations, weights),
        _array(gradient.to(weights.dtype), -1, heads, head_width),
        to_value.numpy(),
        to_locations.flatten(0, 1).numpy(),
        to_weights.flatten(0, 1).numpy(),
    )
    return to_value.to(value.dtype), to_locations, to_weights
