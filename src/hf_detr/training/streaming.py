"""Training on a stream, whose rows arrive one after the other, are shuffled in a buffer and divided among ranks."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import get_worker_info

from hf_detr.data.schema import DataError


class TrainingStream(torch.utils.data.IterableDataset):
    """The rows of a stream for one rank, without an end: pass after pass, each in another order.

    Ranks and loader workers divide the stream by `split_dataset_by_node`: by its shards where their number allows,
    else each takes every n-th row. accelerate's own ways do not fit: it either lets rank 0 read for all and cuts the
    batches, which lists of objects do not survive, or collates what other ranks need as well. The stream has no end
    because ranks with unequally many rows would end at different steps and wait for each other for ever.

    A row also carries `pass`, the number of the pass, and `progress`, the share of the run before it: a worker that
    reads ahead cannot know them otherwise.

    Args:
        stream: rows of the schema of `hf_detr.data`, images undecoded.
        seed: the number that the order is drawn with.
        buffer_size: the number of rows that are shuffled at a time; shards are shuffled as a whole.
        num_queries: the most objects of an image that the model can find.
        rows_of_rank: the number of rows that this rank will train on.
        batch_size: the number of rows in a batch of this rank; loader workers take batches in turn.
        rank, ranks: the number of this rank, and how many ranks there are.
    """

    def __init__(
        self,
        stream: IterableDataset,
        seed: int,
        buffer_size: int,
        num_queries: int,
        rows_of_rank: int,
        batch_size: int,
        rank: int,
        ranks: int,
    ):
        self.stream = stream
        self.seed = seed
        self.buffer_size = buffer_size
        self.num_queries = num_queries
        self.rows_of_rank = rows_of_rank
        self.batch_size = batch_size
        self.rank = rank
        self.ranks = ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of this worker.

        Raises:
            DataError: there is no row for this worker.
            ValueError: an image has more objects than the model has queries.
        """
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        lane, lanes = self.rank * workers + number, self.ranks * workers
        yielded = 0
        for epoch in count():
            before = yielded
            generator = np.random.default_rng([self.seed, epoch])
            shuffled = self.stream.shuffle(generator=generator, buffer_size=self.buffer_size)
            mine = split_dataset_by_node(shuffled, lane, lanes)
            # `iter` in place of plain iteration, which in a worker would divide the rows a second time.
            for [row] in map(_rows, mine.iter(batch_size=1)):
                check_object_count(row["image_id"], row["objects"], self.num_queries)
                batches_before = yielded // self.batch_size * workers + number
                yielded += 1
                yield {**row, "pass": epoch, "progress": batches_before * self.batch_size / self.rows_of_rank}
            if yielded == before:
                raise DataError(
                    f"the training stream has no row for rank {self.rank}, worker {number}: it has fewer rows than "
                    f"the {lanes} processes that read it"
                )


def check_object_count(image_id: int, objects: dict[str, list], num_queries: int) -> None:
    """Check that a model with `num_queries` queries can find all objects of an image.

    Raises:
        ValueError: the image has more objects than queries. Crowd regions do not count, because they are no targets.
    """
    found = len(objects["iscrowd"]) - sum(objects["iscrowd"])
    if found > num_queries:
        raise ValueError(
            f"image id {image_id} of the training set has {found} objects, but the model has only {num_queries} "
            f"queries: build it with num_queries={found} or more"
        )


def _rows(batch: dict[str, list]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
