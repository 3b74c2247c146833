"""The passes of a training, and the one context in which our trainer trains."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from .fast_dropout import use_fast_dropout
from .frozen_norms import fold_frozen_norms
from .heap import freed_memory_is_kept
from .onednn_linear import use_onednn
from .passes import Pass, apply_passes

TRAINING_PASSES: tuple[Pass, ...] = (fold_frozen_norms,)
"""Passes that help a training on every device."""
CPU_TRAINING_PASSES: tuple[Pass, ...] = (*TRAINING_PASSES, use_onednn, use_fast_dropout)
"""Passes that help a training on a CPU."""


def training_passes(device: str) -> tuple[Pass, ...]:
    """The passes of a training on a type of device, such as "cpu" or "cuda"."""
    return CPU_TRAINING_PASSES if device == "cpu" else TRAINING_PASSES


@contextmanager
def faster_training(model: nn.Module, device: str) -> Iterator[None]:
    """Train a model inside; it computes the same faster, and is afterwards what it was but for its weights.

    `HfDetrTrainer` enters this by itself. Whoever trains with a loop or another trainer may enter it around the
    training: gradients are equal up to rounding, and dropout draws other random numbers than PyTorch's.

    Args:
        model: a model that holds detectors of this package; it stays in its mode.
        device: the type of the device on which the model trains, such as "cpu" or "cuda".
    """
    undo = apply_passes(model, training_passes(device))
    try:
        with freed_memory_is_kept() if device == "cpu" else nullcontext():
            yield
    finally:
        undo()
