"""The suite that measures the way from decoded images to a batch of pixels."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module

from hf_detr import HfDetrImageProcessor, HfDetrImageProcessorPil
from hf_detr.benchmarking.contest import Comparison, Contestant, Work
from hf_detr.benchmarking.options import BenchOptions
from hf_detr.benchmarking.scenes import picture
from hf_detr.processing.sizes import SHORTEST_EDGE, published_size

PROCESSORS = {
    "hf_detr": HfDetrImageProcessor,
    "hf_detr, PIL": HfDetrImageProcessorPil,
    "transformers": "DetrImageProcessor",
    "transformers, PIL": "DetrImageProcessorPil",
}


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield pictures of 640 x 480 that become 1066 x 800, or of 64 x 48 that become 106 x 80 when quick."""
    scale = 0.1 if options.quick else 1
    size = published_size(round(SHORTEST_EDGE * scale))
    width, height = round(640 * scale), round(480 * scale)
    for batch in (1, 8):
        contestants = [
            Contestant(name, partial(preprocessing, processor, size, (width, height), batch))
            for name, processor in PROCESSORS.items()
        ]
        name = f"{width}x{height} to shortest edge {size['shortest_edge']}, batch {batch}"
        yield Comparison(name, contestants, "transformers")


def preprocessing(processor: type | str, size: dict[str, int], image_size: tuple[int, int], batch: int) -> Work:
    """Return the work of one of the image processors on pictures in memory."""
    kind = getattr(import_module("transformers"), processor) if isinstance(processor, str) else processor
    instance = kind(size=size)
    images = [picture(*image_size, seed=index) for index in range(batch)]
    return lambda lap: instance(images=images, return_tensors="pt")
