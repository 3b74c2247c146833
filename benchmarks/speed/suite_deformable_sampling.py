"""The suite that measures the forms of multi-scale deformable sampling, at the sizes of an image of 800 x 1066."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hf_detr.benchmarking.contest import Comparison, Contestant, Lap, Work
from hf_detr.benchmarking.options import BenchOptions
from hf_detr.modeling.deformable import deformable_attention

SHAPES = ((100, 134), (50, 67), (25, 34), (13, 17))
QUICK_SHAPES = ((16, 20), (8, 10), (4, 5), (2, 3))
HEADS, WIDTH, POINTS = 8, 32, 4
DECODER_QUERIES = 300


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield the queries of the encoder (every token) and of the decoder, forward and with gradients."""
    shapes = QUICK_SHAPES if options.quick else SHAPES
    for part in ("encoder", "decoder"):
        for backward in (False, True):
            contestants = [
                Contestant("hf_detr compiled", partial(our_work, "compiled", part, backward, shapes, options.device)),
                Contestant("hf_detr gather", partial(our_work, "gather", part, backward, shapes, options.device)),
                Contestant("grid_sample", partial(our_work, "grid_sample", part, backward, shapes, options.device)),
                Contestant("transformers", partial(their_work, part, backward, shapes, options.device)),
            ]
            yield Comparison(f"{part}, forward{' and backward' * backward}", contestants, "transformers")


def references(part: str, shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """Return (x, y) as (1, queries, 2): the centres of all cells for the encoder, random points for the decoder."""
    if part == "decoder":
        return torch.rand(1, DECODER_QUERIES, 2, generator=torch.Generator().manual_seed(1))
    centres = [
        torch.cartesian_prod((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width).flip(-1)
        for height, width in shapes
    ]
    return torch.cat(centres).unsqueeze(0)


def arguments(part: str, shapes: tuple[tuple[int, int], ...], device: str, backward: bool) -> list[Tensor]:
    """Return values, locations within a few pixels of the references on each level, and softmax weights."""
    generator = torch.Generator().manual_seed(0)
    points = references(part, shapes)
    queries, levels, tokens = points.shape[1], len(shapes), sum(height * width for height, width in shapes)
    extents = torch.tensor([[width, height] for height, width in shapes]).view(levels, 1, 2)
    offsets = 2 * torch.randn(1, queries, HEADS, levels, POINTS, 2, generator=generator) / extents
    weights = torch.randn(1, queries, HEADS, levels * POINTS, generator=generator).softmax(-1)
    tensors = [
        torch.randn(1, tokens, HEADS, WIDTH, generator=generator),
        points[:, :, None, None, None] + offsets,
        weights.unflatten(-1, (levels, POINTS)),
    ]
    return [tensor.to(device).requires_grad_(backward) for tensor in tensors]


def our_work(form: Any, part: str, backward: bool, shapes: tuple[tuple[int, int], ...], device: str) -> Work:
    """Return the work of one of our forms."""
    value, locations, weights = arguments(part, shapes, device, backward)

    def work(lap: Lap) -> Tensor:
        output = deformable_attention(value, list(shapes), locations, weights, form=form)
        return finish(output, backward, lap)

    return work


def their_work(part: str, backward: bool, shapes: tuple[tuple[int, int], ...], device: str) -> Work:
    """Return the sampling of transformers' Deformable DETR."""
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    attention = MultiScaleDeformableAttention()
    value, locations, weights = arguments(part, shapes, device, backward)
    shape_tensor = torch.tensor(shapes, device=device)
    areas = shape_tensor.prod(1)
    starts = areas.cumsum(0) - areas

    def work(lap: Lap) -> Tensor:
        output = attention(value, shape_tensor, list(shapes), starts, locations, weights, im2col_step=64)
        return finish(output, backward, lap)

    return work


def finish(output: Tensor, backward: bool, lap: Lap) -> Tensor:
    """Run the backward pass, if it is part of the work."""
    if backward:
        lap("forward")
        output.backward(torch.ones_like(output))
        lap("backward")
    return output.detach()
