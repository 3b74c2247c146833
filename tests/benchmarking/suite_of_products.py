"""A suite that takes no time: products of matrices, with a contestant of ours and a peer."""

from collections.abc import Iterator
from functools import partial

import torch

from hf_detr.benchmarking.contest import Comparison, Contestant, Lap, Work
from hf_detr.benchmarking.options import BenchOptions


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    for size in (8, 16):
        contestants = [Contestant(name, partial(product, size)) for name in ("hf_detr", "transformers")]
        yield Comparison(f"{size} rows", contestants, "transformers")


def product(size: int) -> Work:
    matrix = torch.ones(size, size)

    def work(lap: Lap) -> None:
        matrix @ matrix
        lap("product")
        matrix.sum()
        lap("sum")

    return work
