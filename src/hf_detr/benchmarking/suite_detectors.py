"""The suite that measures detectors of every kind on one image, to compare ours with all others."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .contest import Comparison, Contestant
from .models import QUICK_SIZE, forward_contestant, our_forms
from .options import BenchOptions
from .peers import (
    REAL_TIME,
    TORCHVISION,
    counterpart,
    rf_detr_model,
    torchvision_forward,
    torchvision_model,
    transformers_model,
    yolo_model,
)

PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50", "dino-resnet-50-4scale")


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield all detectors in turn on one image of 640 x 640. Each has its published size, and the sizes differ."""
    height, width = QUICK_SIZE if options.quick else (640, 640)
    shape = (1, height, width)
    contestants: list[Contestant] = []
    for preset in options.presets or PRESETS[: 1 if options.quick else None]:
        for form in our_forms(preset, shape, options):
            name = form.name.replace("hf_detr", f"hf_detr {preset}")
            contestants.append(Contestant(name, form.build, form.dtype, form.count_flops))
    contestants.append(
        forward_contestant("transformers DETR R50", partial(counterpart, "detr-resnet-50"), shape, options)
    )
    for name, kind in REAL_TIME.items():
        contestants.append(
            forward_contestant(f"transformers {name}", partial(transformers_model, kind), shape, options, pixels_only)
        )
    for name, builder in TORCHVISION.items():
        make = partial(torchvision_model, builder)
        contestants.append(forward_contestant(f"torchvision {name}", make, shape, options, torchvision_forward))
    contestants.append(forward_contestant("ultralytics YOLOv8n", yolo_model, shape, options, positional))
    contestants.append(forward_contestant("rfdetr medium", rf_detr_model, shape, options, positional))
    yield Comparison(f"one image, {height}x{width}", contestants, "transformers DETR R50")


def pixels_only(model: torch.nn.Module, pixels: Tensor) -> Callable[[], object]:
    """Return the forward pass of models without padding."""
    return lambda: model(pixel_values=pixels)


def positional(model: torch.nn.Module, pixels: Tensor) -> Callable[[], object]:
    """Return the forward pass of a module that takes pixels."""
    return lambda: model(pixels)
