"""Augmentation that does not depend on who runs it or on what was run before."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback


class SeededCollator(TrainerCallback):
    """Runs a collator under a torch seed made of the run's seed, the epoch and the images of the batch.

    Worker processes prefetch, and a resumed run skips what it has seen: random numbers drawn from the state of a
    process would differ. As a callback it learns the epoch from the `Trainer`.

    Args:
        collator: the collator to run; its random numbers must be torch's.
        seed: the run's seed.
    """

    def __init__(self, collator: Callable[[Sequence[dict]], Any], seed: int):
        self.collator = collator
        self.seed = seed
        # Shared memory: persistent workers outlive the epoch in which they started.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Take over the number of the epoch that begins."""
        self.epoch.fill_(int(state.epoch or 0))

    def __call__(self, examples: Sequence[dict]) -> Any:
        """Collate `examples`, rows of a data set with a column `image_id`."""
        key = (self.seed, self.epoch.item(), [example["image_id"] for example in examples])
        digest = hashlib.sha256(repr(key).encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
            return self.collator(examples)
