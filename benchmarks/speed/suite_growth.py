"""The suite that measures how time and memory grow with image area, queries, objects and batch."""

from collections.abc import Iterator

import torch
from matching_work import Scene

from hf_detr.benchmarking.contest import Comparison, Contestant
from hf_detr.benchmarking.models import forward_contestant, our_model
from hf_detr.benchmarking.options import BenchOptions
from hf_detr.benchmarking.peers import counterpart

PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50")
SIDES = (320, 480, 640, 960, 1280)
QUERIES = (100, 300, 900, 2700)
BATCHES = (1, 2, 4, 8)
OBJECTS = (5, 20, 80, 300)
QUICK_SIDES, QUICK_QUERIES, QUICK_BATCHES, QUICK_OBJECTS = (64, 128), (100, 300), (1, 2), (5, 20)


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield ours and transformers' forward passes against area, queries and batch, and losses against objects."""
    quick = options.quick
    side = QUICK_SIDES[0] if quick else 640
    for preset in options.presets or PRESETS:
        for size in QUICK_SIDES if quick else SIDES:
            yield forwards(preset, ("image area", size**2), (1, size, size), options)
        for queries in QUICK_QUERIES if quick else QUERIES:
            yield forwards(preset, ("queries", queries), (1, side, side), options, num_queries=queries)
        for batch in options.batches or (QUICK_BATCHES if quick else BATCHES):
            yield forwards(preset, ("batch", batch), (batch, side, side), options)
    for objects in QUICK_OBJECTS if quick else OBJECTS:
        scene = Scene("softmax", 2 if quick else 8, objects, 300, options.device)
        axis = ("objects", float(objects))
        yield Comparison(f"matching and losses, {objects} objects an image", scene.contestants(), "transformers", axis)


def forwards(
    preset: str, axis: tuple[str, float], shape: tuple[int, int, int], options: BenchOptions, **overrides: int
) -> Comparison:
    """Return our model and transformers' at one point of a curve."""

    def ours() -> torch.nn.Module:
        return our_model(preset, **overrides)

    def theirs() -> torch.nn.Module:
        return counterpart(preset, **overrides)

    contestants: list[Contestant] = [
        forward_contestant("hf_detr", ours, shape, options),
        forward_contestant("transformers", theirs, shape, options),
    ]
    return Comparison(f"{preset}, {axis[0]} {axis[1]:,.0f}", contestants, "transformers", axis)
