"""Leaves out optimizer steps whose loss or gradient is not finite, so that they cannot spoil the weights."""

import logging
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Labels = Sequence[dict[str, Tensor]]


class NonFiniteLossError(ArithmeticError):
    """The loss of a batch is not finite on some process. The error is raised on all processes alike."""


class FiniteSteps:
    """Keeps steps whose loss or gradient is NaN or infinite from reaching the optimizer, and reports them.

    It does nothing under float16, where the gradient scaler meets infinite gradients by design and skips them itself.

    Args:
        accelerator: the accelerator of the run.
        limit: the number of skipped steps in a row that ends the training.
    """

    def __init__(self, accelerator: Accelerator, limit: int):
        self.accelerator = accelerator
        self.limit = limit
        self.step = 0
        self.labels: Labels = []
        self.is_finite = True
        self.skipped_in_a_row = 0

    def begin(self, step: int, labels: Labels) -> None:
        """Begin the optimizer step number `step` over the images of `labels`."""
        self.step, self.labels, self.is_finite = step, labels, True

    def check_loss(self, loss: Tensor, labels: Labels) -> None:
        """Check the loss of one batch.

        Raises:
            NonFiniteLossError: the loss is not finite on one of the processes. It is raised on all, because a process
                that went on to `backward` would wait for the others.
        """
        if self.accelerator.scaler is not None:
            return
        is_finite = torch.isfinite(loss.detach()).all()
        if self.accelerator.reduce((~is_finite).float(), "sum") == 0:
            return
        self.is_finite = False
        if not is_finite:
            logger.warning(
                "Step %d is skipped: the loss is %s on the images %s", self.step, loss.item(), image_ids(labels)
            )
        raise NonFiniteLossError

    def finish(self, model: nn.Module, gradient_norm: Tensor | float) -> bool:
        """Return whether the step goes on. If not, clear the gradients: an optimizer passes over parameters without
        one.

        Raises:
            RuntimeError: as many steps in a row were skipped as the limit allows.
        """
        if self.accelerator.scaler is not None:
            return True
        if self.is_finite and not torch.isfinite(torch.as_tensor(gradient_norm)):
            self.is_finite = False
            logger.warning(
                "Step %d is skipped: the gradient norm is %s after the images %s",
                self.step, float(gradient_norm), image_ids(self.labels),
            )  # fmt: skip
        if self.is_finite:
            self.skipped_in_a_row = 0
            return True
        model.zero_grad(set_to_none=True)
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.limit:
            raise RuntimeError(
                f"no finite loss for {self.limit} steps in a row, the last one step {self.step} on the images "
                f"{image_ids(self.labels)}: lower the learning rate, or look at these images and their boxes"
            )
        return False


def image_ids(labels: Labels) -> list[int]:
    """Return the image ids of a batch of labels."""
    return [int(label["image_id"]) for label in labels]
