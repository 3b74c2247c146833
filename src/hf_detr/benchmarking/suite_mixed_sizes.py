"""The suite that measures images of different sizes: one by one, and as one padded batch."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from hf_detr.acceleration.inference import optimize_for_inference

from .contest import Comparison, Contestant, Lap, Work
from .models import our_model
from .options import BenchOptions
from .peers import counterpart

PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50")
# Photographs of 4:3, 3:2 and 16:9, upright and not, the shortest edge 480.
SIZES = ((480, 640), (640, 480), (480, 640), (480, 720), (720, 480), (480, 640), (480, 853), (853, 480))
QUICK_SIZES = ((64, 96), (96, 64), (64, 96))


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield the same images through the same model in each way, and padded through the model of transformers."""
    sizes = QUICK_SIZES if options.quick else SIZES
    for preset in options.presets or PRESETS:
        ours = partial(our_model, preset)

        def faster(preset: str = preset) -> nn.Module:
            return optimize_for_inference(our_model(preset).eval().to(options.device))

        one_by_one = "hf_detr optimised, one by one"
        yield Comparison(
            f"{preset}, {len(sizes)} images",
            [
                Contestant(one_by_one, partial(singly, faster, sizes, options.device)),
                Contestant("hf_detr optimised, one batch", partial(padded, faster, sizes, options.device)),
                Contestant("hf_detr, one batch", partial(padded, ours, sizes, options.device)),
                Contestant(
                    "transformers, one batch", partial(padded, partial(counterpart, preset), sizes, options.device)
                ),
            ],
            one_by_one,
        )


def pictures(sizes: tuple[tuple[int, int], ...], device: str) -> list[Tensor]:
    """Return images (3, height, width) of normal noise."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator).to(device) for size in sizes]


def singly(make: Callable[[], nn.Module], sizes: tuple[tuple[int, int], ...], device: str) -> Work:
    """Return the work of running each image alone, with the mask that an image processor makes of it."""
    model = make().eval().to(device)
    batches = [
        {"pixel_values": picture[None], "pixel_mask": torch.ones(1, *picture.shape[1:], dtype=torch.int64).to(device)}
        for picture in pictures(sizes, device)
    ]

    def work(_: Lap) -> None:
        with torch.inference_mode():
            for batch in batches:
                model(**batch)

    return work


def padded(make: Callable[[], nn.Module], sizes: tuple[tuple[int, int], ...], device: str) -> Work:
    """Return the work of running all images in one call, padded at the right and below."""
    model = make().eval().to(device)
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    pixel_values = torch.zeros(len(sizes), 3, height, width, device=device)
    pixel_mask = torch.zeros(len(sizes), height, width, dtype=torch.int64, device=device)
    for index, picture in enumerate(pictures(sizes, device)):
        own_height, own_width = picture.shape[1:]
        pixel_values[index, :, :own_height, :own_width] = picture
        pixel_mask[index, :own_height, :own_width] = 1

    def work(_: Lap) -> None:
        with torch.inference_mode():
            model(pixel_values=pixel_values, pixel_mask=pixel_mask)

    return work
