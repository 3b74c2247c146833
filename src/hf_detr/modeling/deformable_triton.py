"""Multi-scale deformable attention sampling on a GPU: Triton kernels.

One program serves one head of a block of queries. Sums are in the dtype of the weights (float32 for half precision
values); the gradient for `value` is added with atomics, so its last bits change from run to run.

Shapes: B batch, Q queries, S tokens, N heads, D width of a head, L levels, P points.
"""

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the GPU form of deformable attention needs triton") from error

QUERIES_PER_PROGRAM = 16
VARYING = ("tokens", "queries")  # with the image: Triton shall not compile another kernel when 16 divides them


@triton.jit
def _cell(position, size):
    """The first of the two pixels around a position, -2 or `size` when both are outside, and the second's share."""
    first = tl.floor(position)
    inside_or_next = tl.minimum(tl.maximum(first, -2.0), size + 0.0)
    return inside_or_next.to(tl.int32), position - first


@triton.jit
def _share(x, y, corner: tl.constexpr):
    """Bilinear weight of a corner: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    horizontal = x if corner % 2 == 1 else 1 - x
    vertical = y if corner // 2 == 1 else 1 - y
    return horizontal * vertical


@triton.jit
def _corner(left, top, height, width, level_start, channels, head_width, stride, corner: tl.constexpr):
    """Offsets (queries, channels) of a corner within one head of one image, and which of them lie on the map."""
    column, row = left + corner % 2, top + corner // 2
    on_map = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    offsets = (level_start + row * width + column)[:, None] * stride + channels[None, :]
    return offsets, on_map[:, None] & (channels < head_width)[None, :]


@triton.jit(do_not_specialize=VARYING)
def _forward(
    value,
    odd_shapes,
    locations,
    weights,
    output,
    tokens,
    queries,
    points,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    channel_block: tl.constexpr,
    query_block: tl.constexpr,
):
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    query = tl.program_id(0) * query_block + tl.arange(0, query_block)
    channels = tl.arange(0, channel_block)
    exists = query < queries
    value += (image.to(tl.int64) * tokens * heads + head) * head_width
    row_of_head = (image.to(tl.int64) * queries + query) * heads + head

    total = tl.zeros((query_block, channel_block), weights.dtype.element_ty)
    level_start = 0
    for level in tl.static_range(len(odd_shapes) // 2):
        height, width = odd_shapes[2 * level] // 2, odd_shapes[2 * level + 1] // 2
        for point in range(points):
            sample = (row_of_head * (len(odd_shapes) // 2) + level) * points + point
            left, x = _cell(tl.load(locations + 2 * sample, exists, -1.0) * width - 0.5, width)
            top, y = _cell(tl.load(locations + 2 * sample + 1, exists, -1.0) * height - 0.5, height)
            weight = tl.load(weights + sample, exists, 0.0)
            for corner in tl.static_range(4):
                offsets, on_map = _corner(
                    left, top, height, width, level_start, channels, head_width, heads * head_width, corner
                )
                read = tl.load(value + offsets, on_map, 0.0).to(total.dtype)
                total += (weight * _share(x, y, corner))[:, None] * read
        level_start += height * width
    stored = exists[:, None] & (channels < head_width)[None, :]
    tl.store(output + row_of_head[:, None] * head_width + channels[None, :], total, stored)


@triton.jit(do_not_specialize=VARYING)
def _backward(
    value,
    odd_shapes,
    locations,
    weights,
    gradient,
    to_value,
    to_locations,
    to_weights,
    tokens,
    queries,
    points,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    channel_block: tl.constexpr,
    query_block: tl.constexpr,
):
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    query = tl.program_id(0) * query_block + tl.arange(0, query_block)
    channels = tl.arange(0, channel_block)
    exists = query < queries
    value += (image.to(tl.int64) * tokens * heads + head) * head_width
    to_value += (image.to(tl.int64) * tokens * heads + head) * head_width
    row_of_head = (image.to(tl.int64) * queries + query) * heads + head
    received = tl.load(
        gradient + row_of_head[:, None] * head_width + channels[None, :],
        exists[:, None] & (channels < head_width)[None, :],
        0.0,
    ).to(weights.dtype.element_ty)

    level_start = 0
    for level in tl.static_range(len(odd_shapes) // 2):
        height, width = odd_shapes[2 * level] // 2, odd_shapes[2 * level + 1] // 2
        for point in range(points):
            sample = (row_of_head * (len(odd_shapes) // 2) + level) * points + point
            left, x = _cell(tl.load(locations + 2 * sample, exists, -1.0) * width - 0.5, width)
            top, y = _cell(tl.load(locations + 2 * sample + 1, exists, -1.0) * height - 0.5, height)
            weight = tl.load(weights + sample, exists, 0.0)
            to_weight, slope_x, slope_y = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
            for corner in tl.static_range(4):
                offsets, on_map = _corner(
                    left, top, height, width, level_start, channels, head_width, heads * head_width, corner
                )
                share = _share(x, y, corner)
                dot = tl.sum(tl.load(value + offsets, on_map, 0.0).to(received.dtype) * received, axis=1)
                tl.atomic_add(to_value + offsets, (weight * share)[:, None] * received, on_map, sem="relaxed")
                to_weight += share * dot
                slope_x += (2 * (corner % 2) - 1) * _share(1, y, corner | 1) * dot
                slope_y += (2 * (corner // 2) - 1) * _share(x, 1, corner | 2) * dot
            tl.store(to_weights + sample, to_weight, exists)
            tl.store(to_locations + 2 * sample, weight * slope_x * width, exists)
            tl.store(to_locations + 2 * sample + 1, weight * slope_y * height, exists)
        level_start += height * width


def _odd(shapes: list[int]) -> tuple[int, ...]:
    """2 n + 1 for every n: Triton compiles other kernels for 1 and for multiples of 16, also inside a tuple."""
    return tuple(2 * size + 1 for size in shapes)


def _sizes(value: Tensor, locations: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid of programs and the size arguments both kernels share."""
    batch, tokens, heads, head_width = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grid = (triton.cdiv(queries, QUERIES_PER_PROGRAM), batch * heads)
    return grid, {
        "tokens": tokens,
        "queries": queries,
        "points": points,
        "heads": heads,
        "head_width": head_width,
        "channel_block": triton.next_power_of_2(head_width),
        "query_block": QUERIES_PER_PROGRAM,
    }


def forward(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The kernel behind the `compiled` form on a GPU; see `_fused` in deformable.py."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    output = value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])
    grid, sizes = _sizes(value, locations)
    with torch.cuda.device_of(value):
        _forward[grid](value, _odd(shapes), locations, weights, output, **sizes)
    return output


def backward(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for value, locations and weights from the one for the output, (B, Q, N * D)."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    to_value = torch.zeros_like(value, dtype=weights.dtype)
    to_locations, to_weights = torch.empty_like(locations), torch.empty_like(weights)
    grid, sizes = _sizes(value, locations)
    with torch.cuda.device_of(value):
        _backward[grid](
            value,
            _odd(shapes),
            locations,
            weights,
            gradient.contiguous(),
            to_value,
            to_locations,
            to_weights,
            **sizes,
        )
    return to_value.to(value.dtype), to_locations, to_weights
