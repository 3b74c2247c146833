import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerState

from hf_detr.training.seeding import SeededCollator

ROWS = [{"image_id": number} for number in range(4)]


def strong(rows):
    return "strong"


def plain(rows):
    return "plain"


def collators_by_epoch(epochs, share, begun=0.0):
    collator = SeededCollator(strong, 0, plain, share)
    found = []
    for epoch in range(epochs):
        # A run that is resumed within an epoch begins that epoch with a broken number.
        state = TrainerState(epoch=epoch + begun, num_train_epochs=epochs)
        collator.on_epoch_begin(None, state, None)
        found.append(collator(ROWS))
    return found


@pytest.mark.parametrize("begun", [0.0, 0.4])
@pytest.mark.parametrize(
    ("epochs", "share", "plain_epochs"), [(20, 0.15, 3), (6, 0.15, 1), (2, 0.15, 0), (5, 0.0, 0), (5, 1.0, 5)]
)
def test_the_last_epochs_are_plain(epochs, share, plain_epochs, begun):
    expected = ["strong"] * (epochs - plain_epochs) + ["plain"] * plain_epochs
    assert collators_by_epoch(epochs, share, begun) == expected


def test_workers_that_live_on_take_over_the_epoch():
    collator = SeededCollator(strong, 0, plain, 0.5)
    loader = DataLoader(ROWS, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=collator)
    found = []
    for epoch in range(2):
        collator.on_epoch_begin(None, TrainerState(epoch=epoch, num_train_epochs=2), None)
        found += list(loader)
    assert found == ["strong", "plain"]


def test_random_numbers_follow_from_seed_epoch_and_images():
    def numbers(seed, epoch, rows):
        collator = SeededCollator(lambda rows: torch.rand(3), seed)
        collator.on_epoch_begin(None, TrainerState(epoch=epoch, num_train_epochs=9), None)
        return tuple(collator(rows).tolist())

    first = numbers(1, 2, ROWS)
    assert numbers(1, 2, ROWS) == first
    assert len({first, numbers(2, 2, ROWS), numbers(1, 3, ROWS), numbers(1, 2, ROWS[1:])}) == 4
