"""Keeps a moving average of the weights. The average is evaluated and saved; the optimizer works on the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

TRAINING_WEIGHTS = "training_weights.safetensors"
"""The file in a checkpoint with the weights that the optimizer works on; `model.safetensors` holds the average."""


def decay_at(step: int, num_steps: int, share: float) -> float:
    """Return the decay after optimizer step number `step`, from 1, of a run of `num_steps`.

    An average of decay d looks back over about 1 / (1 - d) steps. A fixed decay suits one length of run only: 0.9999
    never forgets the random start of a run of 300 steps. Here the average looks back over `share` of the run, whatever
    its length. Until so many steps are done, it looks back over a ninth of the steps done so far.
    """
    final = 1.0 - 1.0 / max(share * num_steps, 1.0)
    return min(final, (1 + step) / (10 + step))


class WeightAverage(TrainerCallback):
    """An exponential moving average of a model's trainable parameters and of its buffers.

    The running statistics of batch norms are averaged like the weights they belong to; integer buffers are copied.
    As a callback it follows the optimizer's steps, and leaves the average in the model when training ends.

    Args:
        model: the model itself, without the wrapper of a distributed run.
        share: the share of the run's optimizer steps that the average looks back over.
        was_skipped: tells whether the last optimizer step changed nothing.
    """

    def __init__(self, model: nn.Module, share: float, was_skipped: Callable[[], bool]):
        self.model = model
        self.share = share
        self.was_skipped = was_skipped
        self.average: dict[str, Tensor] = {}
        # The model's tensors beside the average of each: looking them up takes longer than following them.
        self._live: dict[str, Tensor] = {}
        self.is_applied = False

    @property
    def is_running(self) -> bool:
        """Whether there is an average that is not in the model."""
        return bool(self.average) and not self.is_applied

    def start(self) -> None:
        """Let the average be the present state of the model."""
        self._live = training_state(self.model)
        self.average = {name: value.detach().clone() for name, value in self._live.items()}

    def stop(self) -> None:
        """Forget the average; the model stays as it is."""
        self.average, self._live = {}, {}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Let the average follow the model by one step."""
        averages, values = [], []
        for name, value in self._live.items():
            if value.is_floating_point():
                averages.append(self.average[name])
                values.append(value.detach())
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model, and at the end the training weights back, bit by bit."""
        if not self.is_running:
            yield
            return
        weights = {name: value.detach().clone() for name, value in self._live.items()}
        self._write(self.average)
        self.is_applied = True
        try:
            yield
        finally:
            self.is_applied = False
            self._write(weights)

    @torch.no_grad()
    def _write(self, state: dict[str, Tensor]) -> None:
        torch._foreach_copy_([self._live[name] for name in state], list(state.values()))

    def share_statistics(self) -> None:
        """Take the buffers of process 0 on all processes, because each has measured its own batches."""
        for name, _ in self.model.named_buffers():
            broadcast(self.average[name])

    def save_training_weights(self, folder: str | Path) -> None:
        """Write the weights that the optimizer works on to a checkpoint."""
        state = {name: value.detach().contiguous() for name, value in self._live.items()}
        save_file(state, Path(folder) / TRAINING_WEIGHTS)

    def resume(self, folder: str | Path) -> None:
        """Take the model, loaded from a checkpoint, as the average, and the training weights from their own file."""
        self.start()
        self._write(load_file(Path(folder) / TRAINING_WEIGHTS))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with the weights that training begins with."""
        if not self.average:
            self.start()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow a step that was not skipped."""
        if not self.was_skipped():
            self.update(decay_at(state.global_step + 1, state.max_steps, self.share))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the average in the model."""
        if self.is_running:
            self._write(self.average)
            self.stop()


def training_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes, by name: trainable parameters and buffers, shared ones once."""
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {**parameters, **dict(model.named_buffers())}
