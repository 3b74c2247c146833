"""Reading many images in threads, a few at a time."""

from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from hf_detr.machine import cores

THREADS = min(32, 2 * cores())
"""Two for each core: decoding leaves Python's lock, and reading waits for the disk."""
ITEMS_AT_ONCE = 256
"""So many items are held at once: the records of a table hold the whole image, and never all fit into memory."""
PROGRESS_FROM = 2000
"""With more items than this, reading takes long enough to show progress."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], description: str | None = None
) -> Iterator[tuple[Item, Result]]:
    """Return items in their order, each with what a function makes of it.

    Args:
        function: called in several threads.
        items: consumed a few at a time.
        description: what the progress bar says, shown for many items; None shows none.
    """
    total = len(items) if isinstance(items, Sized) else 0
    bar = tqdm(total=total, desc=description, disable=description is None or total <= PROGRESS_FROM, leave=False)
    remaining = iter(items)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        while chunk := list(islice(remaining, ITEMS_AT_ONCE)):
            yield from zip(chunk, pool.map(function, chunk), strict=True)
            bar.update(len(chunk))
