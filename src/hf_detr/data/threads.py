"""Reads many images in threads, a few at a time."""

from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from hf_detr.machine import cores

THREADS = min(32, 2 * cores())
"""The number of threads: two for each core, because decoding releases Python's lock and reading waits for the disk."""
ITEMS_AT_ONCE = 256
"""The number of items held at once. Records of a table hold the whole image, and all of them may not fit into
memory."""
PROGRESS_FROM = 2000
"""With more items than this, reading takes long enough to show progress."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], description: str | None = None
) -> Iterator[tuple[Item, Result]]:
    """Return items in their order, each with the result of a function.

    Args:
        function: the function, which is called in several threads.
        items: the items, which are consumed a few at a time.
        description: the text of the progress bar, which is shown for many items; None shows no bar.
    """
    total = len(items) if isinstance(items, Sized) else 0
    bar = tqdm(total=total, desc=description, disable=description is None or total <= PROGRESS_FROM, leave=False)
    remaining = iter(items)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        while chunk := list(islice(remaining, ITEMS_AT_ONCE)):
            yield from zip(chunk, pool.map(function, chunk), strict=True)
            bar.update(len(chunk))
