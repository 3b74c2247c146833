"""Cuts a run into numbered chunks of consecutive pictures, and makes batches of a chunk inside loader workers.

A chunk is the unit of work: one worker of one rank reads it, its batches hold no picture of another chunk, and its
results are one file. So results depend neither on the number of ranks and workers nor on restarts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count, islice
from typing import Any, NamedTuple

import pyarrow
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from hf_detr.data.images import decode_image
from hf_detr.data.schema import DataError
from hf_detr.processing.image_processing import DetectionProcessing

from .detection import Prepared, prepare, stack
from .sources import Picture, Stream

WAITING_BATCHES = 4
"""A worker holds at most this many batches of pictures that wait for others of their shape."""
IDS_PER_STREAM = 1_000_000_000
"""The image ids of a stream start at its number times this value, where the lengths of streams are unknown."""


class Chunk(NamedTuple):
    """The `number`-th chunk of a stream."""

    stream: int
    number: int


@dataclass(frozen=True)
class Row:
    """The facts about a picture before the model sees it; `error` says why it could not be read."""

    image_id: int
    file_name: str
    width: int | None = None
    height: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class PreparedBatch:
    """Pictures of a chunk, with their positions in it. The originals are kept only where they are to be drawn on."""

    chunk: Chunk
    positions: tuple[int, ...]
    rows: tuple[Row, ...]
    inputs: Prepared
    originals: tuple[Image.Image, ...] | None


@dataclass(frozen=True)
class FinishedChunk:
    """The end of a chunk, after all its batches."""

    chunk: Chunk
    rows: list[Row]


@dataclass(frozen=True)
class BrokenSource:
    """A source that cannot be read on: unlike a broken picture, this ends the run."""

    message: str


@dataclass(frozen=True)
class Share:
    """The chunks of one rank.

    Attributes:
        rank, ranks: the number of the rank, and how many ranks there are.
        chunks: the chunks of streams of known length that are the rank's own.
        open_streams: the streams of unknown length, which ranks and workers divide on the way.
        done: the chunks of open streams that are finished.
    """

    rank: int
    ranks: int
    chunks: tuple[Chunk, ...]
    open_streams: tuple[int, ...]
    done: frozenset[Chunk]


def divide(streams: Sequence[Stream], chunk_size: int, done: frozenset[Chunk], rank: int, ranks: int) -> Share:
    """Return the share of a rank: every `ranks`-th chunk of the chunks that are not done."""
    pending = [
        Chunk(index, number)
        for index, stream in enumerate(streams)
        if stream.length is not None
        for number in range(-(-stream.length // chunk_size))
        if Chunk(index, number) not in done
    ]
    open_streams = tuple(index for index, stream in enumerate(streams) if stream.length is None)
    return Share(rank, ranks, tuple(pending[rank::ranks]), open_streams, done)


def first_image_ids(streams: Sequence[Stream]) -> list[int] | None:
    """Return the image id of each stream's first picture; None where all streams bring ids of their own.

    Ids count from 1 over all streams. Where a length is unknown, each stream starts at a multiple of a billion.
    """
    if all(stream.has_image_ids for stream in streams):
        return None
    lengths = [stream.length for stream in streams if stream.length is not None]
    if len(lengths) < len(streams):
        return [1 + index * IDS_PER_STREAM for index in range(len(streams))]
    return [1 + before for before in accumulate(lengths[:-1], initial=0)]


class ChunkReader(IterableDataset):
    """Yields the batches of a rank's chunks and the end of each chunk, for a `DataLoader` that does not batch.

    Args:
        streams: the pictures.
        share: the chunks to read.
        image_processor: the image processor that prepares pictures for the model.
        chunk_size, batch_size: the most pictures of a chunk, and of a batch.
        keep_originals: whether the decoded pictures are sent along.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        share: Share,
        image_processor: DetectionProcessing,
        chunk_size: int,
        batch_size: int,
        keep_originals: bool,
    ):
        self.streams = streams
        self.share = share
        self.image_processor = image_processor
        self.chunk_size = chunk_size
        self.batch_size = batch_size
        self.keep_originals = keep_originals
        self.first_image_ids = first_image_ids(streams)

    def num_images(self) -> int | None:
        """Return the number of pictures in the share; None where nobody knows it."""
        if self.share.open_streams:
            return None
        known = [(chunk, self.streams[chunk.stream].length) for chunk in self.share.chunks]
        rests = [length - chunk.number * self.chunk_size for chunk, length in known if length is not None]
        return sum(min(rest, self.chunk_size) for rest in rests)

    def __iter__(self) -> Iterator[PreparedBatch | FinishedChunk | BrokenSource]:
        """Yield the part of this worker."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            for chunk, pictures in self._chunks(number, workers):
                yield from self._prepare(chunk, pictures)
        except (DataError, OSError, ValueError, pyarrow.ArrowException) as error:
            yield BrokenSource(str(error))

    def _chunks(self, worker: int, workers: int) -> Iterator[tuple[Chunk, Iterator[Picture]]]:
        for chunk in self.share.chunks[worker::workers]:
            pictures = self.streams[chunk.stream].read(chunk.number * self.chunk_size)
            yield chunk, islice(pictures, self.chunk_size)
        lane, lanes = self.share.rank * workers + worker, self.share.ranks * workers
        for order, stream in enumerate(self.share.open_streams):
            # With fewer streams than lanes, several lanes read a stream, each keeping every n-th chunk.
            streams = len(self.share.open_streams)
            sharing = max(1, len(range(order, lanes, streams)))
            if lane % min(lanes, streams) == order % min(lanes, streams):
                mine = lane // streams if lanes > streams else 0
                yield from self._open_chunks(stream, mine, sharing)

    def _open_chunks(self, stream: int, first: int, step: int) -> Iterator[tuple[Chunk, Iterator[Picture]]]:
        """Yield every `step`-th chunk of a stream that is not done, in one pass until the stream ends."""
        numbers = (number for number in count(first, step) if Chunk(stream, number) not in self.share.done)
        pictures, position = None, 0
        for number in numbers:
            start = number * self.chunk_size
            if pictures is None:
                pictures, position = self.streams[stream].read(start), start
            held = list(islice(pictures, start - position, start - position + self.chunk_size))
            position = start + self.chunk_size
            if held:
                yield Chunk(stream, number), iter(held)
            if len(held) < self.chunk_size:
                return

    def _prepare(self, chunk: Chunk, pictures: Iterator[Picture]) -> Iterator[PreparedBatch | FinishedChunk]:
        """Yield the batches of a chunk; pictures wait until others of their shape fill a batch."""
        rows: list[Row] = []
        waiting: dict[torch.Size, list[tuple[int, Row, Prepared, Image.Image]]] = {}
        for position, picture in enumerate(pictures):
            row = Row(self._image_id(chunk, position, picture), picture.name)
            try:
                image = decode_image(picture.image)
                prepared = prepare(self.image_processor, image)
            except Exception as error:  # each of Pillow's decoders has its own exceptions
                rows.append(replace(row, error=str(error) or type(error).__name__))
                continue
            row = replace(row, width=image.width, height=image.height)
            rows.append(row)
            group = waiting.setdefault(prepared.shape, [])
            group.append((position, row, prepared, image))
            if len(group) == self.batch_size:
                yield self._batch(chunk, waiting.pop(prepared.shape))
            elif sum(map(len, waiting.values())) >= WAITING_BATCHES * self.batch_size:
                yield self._batch(chunk, waiting.pop(max(waiting, key=lambda shape: len(waiting[shape]))))
        for group in waiting.values():
            yield self._batch(chunk, group)
        yield FinishedChunk(chunk, rows)

    def _batch(self, chunk: Chunk, group: list[tuple[int, Row, Prepared, Image.Image]]) -> PreparedBatch:
        positions, rows, prepared, images = zip(*group, strict=True)
        return PreparedBatch(chunk, positions, rows, stack(prepared), images if self.keep_originals else None)

    def _image_id(self, chunk: Chunk, position: int, picture: Picture) -> int:
        if self.first_image_ids is not None:
            return self.first_image_ids[chunk.stream] + chunk.number * self.chunk_size + position
        if picture.image_id is None:
            raise DataError(f"{picture.name}: expected an integer in the column 'image_id', found none")
        return picture.image_id


def as_it_is(message: Any) -> Any:
    """Collate nothing."""
    return message
