"""Training on streams: which rank sees what, in which order, and that resuming continues."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from hf_detr.data import DataError, make_synthetic_dataset, undecoded
from hf_detr.training.seeding import SeededCollator
from hf_detr.training.streaming import TrainingStream

IMAGES = 12


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return undecoded(make_synthetic_dataset(IMAGES, 64, max_objects=4))


def stream_of(rows: Dataset, shards: int = 3, rank: int = 0, ranks: int = 1, **changes) -> TrainingStream:
    options = {"seed": 0, "buffer_size": 5, "num_queries": 10, "rows_of_rank": IMAGES, "batch_size": 1, **changes}
    return TrainingStream(rows.to_iterable_dataset(num_shards=shards), rank=rank, ranks=ranks, **options)


def first_rows(stream: TrainingStream, count: int, workers: int = 0) -> list[dict]:
    loader = DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=lambda row: row)
    return list(islice(loader, count))


@pytest.mark.parametrize(("shards", "workers"), [(1, 0), (4, 0), (3, 0), (4, 2), (3, 2)])
def test_two_ranks_see_disjoint_rows_and_together_all(rows: Dataset, shards: int, workers: int):
    seen = []
    for rank in range(2):
        found = first_rows(stream_of(rows, shards, rank, 2), 2 * IMAGES, workers)
        seen.append([row["image_id"] for row in found if row["pass"] == 0])
    assert not set(seen[0]) & set(seen[1])
    assert sorted(seen[0] + seen[1]) == list(range(IMAGES))


def test_passes_differ_and_seeds_repeat(rows: Dataset):
    first, again, other = (
        [row["image_id"] for row in first_rows(stream_of(rows, seed=seed), 2 * IMAGES)] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert sorted(first[:IMAGES]) == sorted(first[IMAGES:]) == list(range(IMAGES))
    assert first[:IMAGES] != first[IMAGES:]
    assert first[:IMAGES] != list(range(IMAGES))


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_know_how_far_the_run_is(rows: Dataset, workers: int):
    stream = stream_of(rows, shards=4, rows_of_rank=24, batch_size=2)
    batches = islice(DataLoader(stream, 2, num_workers=workers, collate_fn=lambda batch: batch), 12)
    progress = [[row["progress"] for row in batch] for batch in batches]
    assert progress == [pytest.approx([index / 12] * 2) for index in range(12)]


def test_the_pass_and_the_progress_reach_the_collator():
    weak, strong = (lambda _: "weak", torch.rand(1).item()), (lambda _: torch.rand(1).item(), None)
    collator = SeededCollator(strong[0], 0, weak[0], plain_share=0.25)
    numbers = [collator([{"image_id": 1, "pass": epoch, "progress": 0.5}]) for epoch in (0, 0, 1)]
    assert numbers[0] == numbers[1] != numbers[2]
    assert collator([{"image_id": 1, "pass": 0, "progress": 0.75}]) == "weak"


def test_rows_that_cannot_be_trained_on_are_named(rows: Dataset):
    crowded = next(row for row in rows if len(row["objects"]["id"]) > 1)
    with pytest.raises(ValueError, match=r"image id \d+ .* has \d objects, but the model has only 1 queries"):
        first_rows(stream_of(rows.select([crowded["image_id"]]), 1, num_queries=1), 1)
    with pytest.raises(DataError, match="no row for rank 1"):
        first_rows(stream_of(rows.select([0]), 1, rank=1, ranks=2), 1)


def test_a_resumed_run_continues_the_stream(build_trainer: Callable, rows: Dataset, tmp_path: Path):
    """Bit for bit, over the end of a pass."""

    def train(name: str, resume: bool = False) -> dict[str, torch.Tensor]:
        arguments = {
            "output_dir": str(tmp_path / name), "max_steps": 8, "save_strategy": "steps", "save_steps": 4,
            "shuffle_buffer": 5, "per_device_train_batch_size": 2,
        }  # fmt: skip
        trainer = build_trainer(arguments, train_dataset=rows.to_iterable_dataset(num_shards=3), eval_dataset=None)
        trainer.train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-4") if resume else None)
        return load_file(tmp_path / name / "checkpoint-8" / "model.safetensors")

    whole = train("run")
    resumed = train("run", resume=True)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_stream_of_other_classes_is_refused(build_trainer: Callable, rows: Dataset):
    trainer = build_trainer({"max_steps": 1}, train_dataset=rows.to_iterable_dataset())
    trainer.model.config.id2label = {0: "cat"}
    with pytest.raises(ValueError, match="the classes of the model are"):
        trainer.train()
