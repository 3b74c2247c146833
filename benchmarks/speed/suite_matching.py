"""The suite that measures matching and losses alone, by objects in an image."""

from collections.abc import Iterator

from matching_work import KINDS, Scene

from hf_detr.benchmarking.contest import Comparison
from hf_detr.benchmarking.options import BenchOptions

OBJECTS = (5, 30, 100)


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield the matching and losses of six layers and 300 queries, in batches of 16, or of 4 when quick."""
    batch = 4 if options.quick else 16
    for kind in KINDS:
        for objects in OBJECTS:
            scene = Scene(kind, batch, objects, 300, options.device)
            name = f"{kind}, {objects} objects an image, batch {batch}"
            yield Comparison(name, scene.contestants(), "transformers")
