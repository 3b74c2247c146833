"""The passes that make a training faster, and the context that applies them while a model trains."""

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
    """Return the passes of a training on a type of device, such as "cpu" or "cuda"."""
    return CPU_TRAINING_PASSES if device == "cpu" else TRAINING_PASSES


@contextmanager
def faster_training(model: nn.Module, device: str) -> Iterator[None]:
    """Let a model that trains inside the context compute the same faster. Afterwards only its weights have changed.

    `HfDetrTrainer` enters this context by itself. A loop of your own or another trainer may run inside it as well.
    Gradients are equal up to rounding, and dropout draws other random numbers than PyTorch's.

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
