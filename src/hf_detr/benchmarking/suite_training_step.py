"""The suite that measures one optimizer step."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from hf_detr import HfDetrForObjectDetection
from hf_detr.acceleration.passes import apply_passes
from hf_detr.acceleration.training import training_passes
from hf_detr.training.optimizer_groups import parameter_groups

from .contest import Comparison, Contestant, Lap, Work
from .models import keeping, our_model, pixels_of
from .options import BenchOptions
from .peers import counterpart
from .scenes import random_labels

PRESETS = (
    "detr-resnet-50",
    "conditional-detr-resnet-50",
    "dab-detr-resnet-50",
    "deformable-detr-resnet-50",
    "deformable-detr-resnet-50-two-stage",
)
QUICK_PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50")
OBJECTS = 20
NUM_LABELS = 91


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield steps on four loaded images of 320 x 320 with 20 objects each, or on two of 64 x 64 when quick."""
    batch, side = (2, 64) if options.quick else (4, 320)
    for preset in options.presets or (QUICK_PRESETS if options.quick else PRESETS):
        step = partial(training_step, options=options, batch=batch, side=side)
        ours, theirs = partial(our_model, preset, num_labels=NUM_LABELS), partial(their_model, preset)
        contestants = [
            Contestant("hf_detr", partial(keeping, partial(step, ours))),  # as our trainer does on a CPU
            Contestant("hf_detr, bfloat16", partial(keeping, partial(step, ours, half=True)), "bfloat16"),
            Contestant("transformers", partial(step, theirs)),
            Contestant("transformers, bfloat16", partial(step, theirs, half=True), "bfloat16"),
        ]
        if options.device == "cpu":
            contestants.append(Contestant("transformers, freed memory kept", partial(keeping, partial(step, theirs))))
        name = f"{preset}, batch {batch}, {side}x{side}, {OBJECTS} objects an image"
        yield Comparison(name, contestants, "transformers")


def their_model(preset: str) -> nn.Module:
    """Return the counterpart with the auxiliary losses that all published models are trained with."""
    return counterpart(preset, auxiliary_loss=True)


def training_step(
    make: Callable[[], nn.Module],
    options: BenchOptions,
    batch: int,
    side: int,
    half: bool = False,
) -> Work:
    """Return a step as `Trainer` makes it: fused AdamW, gradients clipped at 0.1, and autocast for bfloat16."""
    torch.manual_seed(0)
    model = make().train().to(options.device)
    if isinstance(model, HfDetrForObjectDetection):  # as our trainer does
        apply_passes(model, training_passes(options.device))
    pixels = pixels_of((batch, side, side), options.device)
    mask = torch.ones(batch, side, side, dtype=torch.int64, device=options.device)
    labels = random_labels(batch, OBJECTS, NUM_LABELS, options.device)
    groups = parameter_groups(model, 1e-6, 1e-4, {"backbone": 0.1})  # the weights should stay where they are
    optimizer = torch.optim.AdamW(groups, fused=True)
    precision = partial(torch.autocast, options.device, torch.bfloat16) if half else nullcontext

    current: list[Lap] = []
    tell_before_the_loss(model, lambda: current[0]("forward"))

    def work(lap: Lap) -> None:
        current[:] = [lap]
        with precision():
            loss = model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss
        lap("matching and losses")
        loss.backward()
        lap("backward")
        nn.utils.clip_grad_norm_([weight for weight in model.parameters() if weight.grad is not None], 0.1)
        optimizer.step()
        optimizer.zero_grad()
        lap("optimizer")

    return work


def tell_before_the_loss(model: nn.Module, tell: Callable[[], None]) -> None:
    """Let the model say when its forward pass is over and its losses begin."""
    name = "compute_loss" if hasattr(model, "compute_loss") else "loss_function"  # the second is transformers' name
    compute_loss = getattr(model, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        tell()
        return compute_loss(*args, **kwargs)

    setattr(model, name, told)
