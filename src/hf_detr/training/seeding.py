"""Seeds augmentation by epoch and images, so that it depends neither on the process nor on what ran before."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SeededCollator(TrainerCallback):
    """Runs a collator under a torch seed made of the run's seed, the epoch and the images of the batch.

    Worker processes prefetch, and a resumed run skips the batches it has seen, so random numbers that came from the
    state of a process would differ. This class is also a callback, by which the `Trainer` tells it the epoch. The last
    epochs may have a collator of their own, with weaker augmentation. Rows of a `TrainingStream` bring their pass and
    progress along instead.

    Args:
        collator: the collator to run; its random numbers must be torch's.
        seed: the run's seed.
        plain_collator: the collator of the last epochs. With None they have the same collator as the others.
        plain_share: the share of the epochs in which `plain_collator` runs, rounded to whole epochs.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[dict]], Any],
        seed: int,
        plain_collator: Callable[[Sequence[dict]], Any] | None = None,
        plain_share: float = 0.0,
    ):
        self.collator = collator
        self.seed = seed
        self.plain_collator = plain_collator or collator
        self.plain_share = plain_share
        # The epoch is in shared memory, because persistent workers outlive the epoch in which they started.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.is_plain = torch.zeros((), dtype=torch.bool).share_memory_()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over the number of the epoch that begins. It decides which collator runs."""
        self.epoch.fill_(int(state.epoch or 0))
        plain_epochs = round(self.plain_share * state.num_train_epochs)
        self.is_plain.fill_(self.epoch.item() >= state.num_train_epochs - plain_epochs)

    def __call__(self, examples: Sequence[dict]) -> Any:
        """Collate `examples`, rows of a data set with a column `image_id`."""
        first = examples[0]
        key = (self.seed, first.get("pass", self.epoch.item()), [example["image_id"] for example in examples])
        is_plain = first["progress"] >= 1 - self.plain_share if "progress" in first else self.is_plain
        digest = hashlib.sha256(repr(key).encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
            collator = self.plain_collator if is_plain else self.collator
            return collator(examples)
