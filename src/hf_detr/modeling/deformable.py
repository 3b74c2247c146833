"""Multi-scale deformable attention sampling (Zhu et al. 2021, "Deformable DETR", equation 3).

Every query reads, per head, `P` bilinear samples from each of `L` feature maps and returns their weighted sum. The
same function exists in three forms that agree up to rounding, and `deformable_attention` picks one:

- `compiled`, the fast one: loops compiled by numba on a CPU, by Triton on a GPU;
- `grid_sample`, PyTorch's own bilinear sampling: for export, and where the compilers are missing;
- `gather`, index operations only: for deterministic training on a GPU, and on devices other than CPU and CUDA.

Shapes: B batch, Q queries, S tokens (all levels flattened and concatenated), N heads, D width of a head, L levels,
P points per level and head.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Literal["compiled", "grid_sample", "gather"]

_COMPILED_FOR = {device for device, compiler in {"cpu": "numba", "cuda": "triton"}.items() if find_spec(compiler)}


def deformable_attention(
    value: Tensor,
    spatial_shapes: list[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    form: Form | None = None,
) -> Tensor:
    """Weighted sum of bilinear samples; zero outside the maps, pixel = x * width - 0.5 (`align_corners=False`).

    Args:
        value: (B, S, N, D), the levels row by row, one after the other. Half precision values are summed in float32.
        spatial_shapes: (height, width) of each level, Python integers; their areas add up to S.
        sampling_locations: (B, Q, N, L, P, 2), (x, y), 0..1 across each level. Keep them in float32 whatever the
            precision of `value`: bfloat16 resolves no better than 1/256 of the image.
        attention_weights: (B, Q, N, L, P).
        form: forces one of the equivalent forms; by default the fastest that is right for the device.

    Returns:
        (B, Q, N * D), of the dtype of `value`.

    Raises:
        ValueError: shapes that do not belong together, or an unknown form.
    """
    _check_shapes(value, spatial_shapes, sampling_locations, attention_weights)
    form = form or _choose_form(value)
    if form not in _FORMS:
        raise ValueError(f"form={form!r}: expected one of {sorted(_FORMS)}")
    precision = torch.promote_types(value.dtype, torch.float32)
    locations, weights = sampling_locations.to(precision), attention_weights.to(precision)
    return _FORMS[form](value, spatial_shapes, locations, weights).to(value.dtype)


def _choose_form(value: Tensor) -> Form:
    device = value.device.type
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "grid_sample"  # a standard ONNX operator; in onnxruntime twice as fast as `gather`
    if device not in ("cpu", "cuda"):
        return "gather"
    if device == "cuda" and torch.are_deterministic_algorithms_enabled():
        return "gather"  # the gradients of both other forms are sums in no fixed order
    return "compiled" if device in _COMPILED_FOR and value.dtype != torch.float64 else "grid_sample"


def _check_shapes(
    value: Tensor, spatial_shapes: list[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> None:
    batch, tokens, heads, _ = value.shape
    if sum(height * width for height, width in spatial_shapes) != tokens:
        raise ValueError(f"value has {tokens} tokens, but spatial_shapes {spatial_shapes} have another area")
    located = tuple(sampling_locations.shape)
    if len(located) != 6 or (located[0], *located[2:4], located[5]) != (batch, heads, len(spatial_shapes), 2):
        raise ValueError(
            f"sampling_locations {located}: expected ({batch}, queries, {heads}, {len(spatial_shapes)}, points, 2)"
        )
    if tuple(attention_weights.shape) != located[:-1]:
        raise ValueError(f"attention_weights {tuple(attention_weights.shape)}: expected {located[:-1]}")


def _grid_sample_form(
    value: Tensor, spatial_shapes: list[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    batch, _, heads, width_of_head = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    value = value.to(attention_weights.dtype)
    grids = 2 * sampling_locations - 1  # grid_sample counts from -1 to 1
    output = value.new_zeros(())
    level_values = value.split([height * width for height, width in spatial_shapes], dim=1)
    for level, (height, width) in enumerate(spatial_shapes):
        maps = level_values[level].permute(0, 2, 3, 1).reshape(batch * heads, width_of_head, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        weights = attention_weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        output = output + (samples * weights).sum(-1)
    return output.view(batch, heads * width_of_head, queries).transpose(1, 2)


def _gather_form(
    value: Tensor, spatial_shapes: list[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Reads the four corners of each sample as rows of one table: index operations only, deterministic everywhere."""
    batch, tokens, heads, width_of_head = value.shape
    table = value.to(attention_weights.dtype).reshape(batch * tokens * heads, width_of_head)
    image = torch.arange(batch, device=value.device).view(batch, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(1, 1, heads, 1)
    output = value.new_zeros(())
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        x = sampling_locations[:, :, :, level, :, 0] * width - 0.5  # (B, Q, N, P)
        y = sampling_locations[:, :, :, level, :, 1] * height - 0.5
        left, top = x.detach().floor(), y.detach().floor()
        right_share, bottom_share = x - left, y - top
        for column, share_x in ((left, 1 - right_share), (left + 1, right_share)):
            for row, share_y in ((top, 1 - bottom_share), (top + 1, bottom_share)):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                weights = attention_weights[:, :, :, level] * share_x * share_y * inside
                token = start + row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
                index = (image * tokens + token) * heads + head
                samples = table.index_select(0, index.flatten()).view(*index.shape, width_of_head)
                output = output + (samples * weights.unsqueeze(-1)).sum(-2)
        start += height * width
    return output.flatten(2)


def _compiled_form(
    value: Tensor, spatial_shapes: list[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    return _fused(value, [size for shape in spatial_shapes for size in shape], sampling_locations, attention_weights)


def _kernels(device: torch.device) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor, Tensor]]]:
    """The forward and the backward kernel, imported when first needed: their compilers take long to load."""
    if device.type == "cuda":
        from .deformable_triton import backward, forward
    else:
        from .deformable_cpu import backward, forward
    return forward, backward


# A copy of this file that travels with a checkpoint is another module: its operators need names of their own.
_NAMESPACE = __name__.replace(".", "_")


@torch.library.custom_op(f"{_NAMESPACE}::deformable_attention", mutates_args=())
def _fused(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    """One opaque operator, so that `torch.compile` keeps it in its graph; shapes are (h, w, h, w, ...)."""
    return _kernels(value.device)[0](value, shapes, locations, weights)


@torch.library.custom_op(f"{_NAMESPACE}::deformable_attention_backward", mutates_args=())
def _fused_backward(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(value.device)[1](value, shapes, locations, weights, gradient)


@_fused.register_fake
def _(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])


@_fused_backward.register_fake
def _(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, list[int], Tensor, Tensor], output: Tensor) -> None:
    value, ctx.shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, locations, weights = ctx.saved_tensors
    to_value, to_locations, to_weights = _fused_backward(value, ctx.shapes, locations, weights, gradient)
    return to_value, None, to_locations, to_weights


_fused.register_autograd(_backward, setup_context=_keep_for_backward)

_FORMS = {"compiled": _compiled_form, "grid_sample": _grid_sample_form, "gather": _gather_form}
