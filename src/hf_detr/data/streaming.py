"""Detection data as streams: rows of the schema one after the other, for sets that are never held as a whole."""

from pathlib import Path

from datasets import IterableDatasetDict

from .images import undecoded
from .loading import load_detection_data

STREAM_SHARDS = 64
"""Into how many parts a set that is no stream by itself is cut, so that ranks and workers can share it."""


def load_streaming_data(data: str | Path, seed: int = 0) -> IterableDatasetDict:
    """Return detection data as streams of rows of the schema, images left undecoded (see `decode_image`).

    The splits are those of `load_detection_data`, with the same arguments.

    Raises:
        DataError: as `load_detection_data`.
    """
    splits = load_detection_data(data, seed)
    return IterableDatasetDict(
        {
            name: undecoded(dataset).to_iterable_dataset(num_shards=min(STREAM_SHARDS, len(dataset)))
            for name, dataset in splits.items()
        }
    )
