"""Matching and losses alone, by objects in an image."""

from collections.abc import Iterator

from matching_work import KINDS, Scene

from hf_detr.benchmarking.contest import Comparison
from hf_detr.benchmarking.options import BenchOptions

OBJECTS = (5, 30, 100)


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Six layers and 300 queries; batch 16, when quick 4."""
    batch = 4 if options.quick else 16
    for kind in KINDS:
        for objects in OBJECTS:
            scene = Scene(kind, batch, objects, 300, options.device)
            name = f"{kind}, {objects} objects an image, batch {batch}"
            yield Comparison(name, scene.contestants(), "transformers")
