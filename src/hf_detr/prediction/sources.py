"""Opens the sources of pictures (files, folders, parquet shards, `datasets` sets) as numbered streams of pictures.

Nothing is decoded here. A stream can be read from any position, which is how a run is cut into chunks and resumed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow
import pyarrow.parquet

from hf_detr.data.images import IMAGE_SUFFIXES, is_image
from hf_detr.data.readers.folder import files_below
from hf_detr.data.readers.rows import image_column
from hf_detr.data.remarks import say_left_out
from hf_detr.data.schema import DataError, locate
from hf_detr.loading import HUB_NAME

PARQUET_SUFFIX = ".parquet"
NO_PICTURES = {PARQUET_SUFFIX, ".json", ".jsonl", ".xml", ".csv", ".yaml", ".yml"}
"""The suffixes of tables and annotations of pictures, which nobody takes for pictures."""
ROWS_AT_A_TIME = 32


@dataclass(frozen=True)
class Picture:
    """A picture that is not decoded yet: `image` holds its `bytes` or `path`; `name` is what reports call it."""

    image: dict[str, Any]
    name: str
    image_id: int | None = None


class Stream(Protocol):
    """Pictures in a fixed order. `length` is None where nobody knows it before the end."""

    @property
    def length(self) -> int | None:
        """The number of pictures."""

    @property
    def has_image_ids(self) -> bool:
        """Whether the pictures come with ids of their own."""

    def read(self, start: int) -> Iterator[Picture]:
        """Yield the pictures from position `start` on."""

    def identity(self) -> str:
        """Return what must be equal for this to be the same stream."""


@dataclass(frozen=True)
class FileStream:
    """Image files."""

    files: Sequence[str]
    has_image_ids: bool = False

    @property
    def length(self) -> int:
        """The number of files."""
        return len(self.files)

    def read(self, start: int) -> Iterator[Picture]:
        """Yield the pictures from position `start` on."""
        for file in self.files[start:]:
            yield Picture({"path": file, "bytes": None}, file)

    def identity(self) -> str:
        """Return the names of the files."""
        return "\n".join(self.files)


@dataclass(frozen=True)
class ParquetStream:
    """A parquet shard with a column of pictures; only the row groups that are asked for are read."""

    path: str
    length: int
    column: str
    has_image_ids: bool

    @classmethod
    def open(cls, path: Path) -> "ParquetStream":
        """Look at the header of a shard.

        Raises:
            DataError: it is not a parquet file, or has no column of pictures.
        """
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                length, schema = file.metadata.num_rows, file.schema_arrow
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise locate(f"expected a parquet file, but it cannot be read ({error})", path) from error
        column = image_column(schema.names, path)
        ids = "image_id" in schema.names and pyarrow.types.is_integer(schema.field("image_id").type)
        return cls(str(path), length, column, ids)

    def read(self, start: int) -> Iterator[Picture]:
        """Yield the pictures from position `start` on."""
        wanted = [self.column] + ["image_id"] * self.has_image_ids
        folder = Path(self.path).parent
        with pyarrow.parquet.ParquetFile(self.path) as file:
            group, position = 0, 0
            while position < self.length and position + file.metadata.row_group(group).num_rows <= start:
                position += file.metadata.row_group(group).num_rows
                group += 1
            groups = list(range(group, file.num_row_groups))
            for batch in file.iter_batches(ROWS_AT_A_TIME, row_groups=groups, columns=wanted):
                skipped = min(max(start - position, 0), batch.num_rows)
                for number, row in enumerate(batch.slice(skipped).to_pylist(), start=position + skipped):
                    yield picture_of_row(row, self.column, f"{self.path}#{number}", folder)
                position += batch.num_rows

    def identity(self) -> str:
        """Return the path and the number of rows."""
        return f"{self.path} {self.length}"


@dataclass(frozen=True)
class DatasetStream:
    """A `datasets` set, or one shard of a set that is read as it arrives."""

    rows: datasets.Dataset | datasets.IterableDataset
    name: str
    column: str
    has_image_ids: bool

    @property
    def length(self) -> int | None:
        """The number of rows, unless it is read as it arrives."""
        return len(self.rows) if isinstance(self.rows, datasets.Dataset) else None

    def read(self, start: int) -> Iterator[Picture]:
        """Yield the pictures from position `start` on."""
        # `iter` in place of plain iteration, which in a worker of a `DataLoader` would leave rows to other workers.
        for number, row in enumerate(self.rows.skip(start).iter(batch_size=1), start=start):
            yield picture_of_row({key: values[0] for key, values in row.items()}, self.column, f"{self.name}#{number}")

    def identity(self) -> str:
        """Return the name and the number of rows."""
        return f"{self.name} {self.length}"


def picture_of_row(row: dict[str, Any], column: str, place: str, folder: Path | None = None) -> Picture:
    """Return the picture of a row; relative paths are relative to `folder`."""
    value, image_id = row[column], row.get("image_id")
    image_id = image_id if isinstance(image_id, int) else None
    if isinstance(value, bytes):
        return Picture({"bytes": value, "path": None}, place, image_id)
    image = {"path": value, "bytes": None} if isinstance(value, str) else dict(value or {})
    path, content = image.get("path"), image.get("bytes")
    if content is None and path is not None and folder is not None:
        path = str(folder / path)
    return Picture({"path": path, "bytes": content}, path or place, image_id)


def open_sources(sources: Sequence[str], split: str | None = None, streaming: bool = False) -> list[Stream]:
    """Return the streams of pictures that the sources are.

    Args:
        sources: image files, parquet shards, folders of either, folders of `datasets.save_to_disk`, or names of data
            sets on the Hub.
        split: the split of a data set; needed where it has several.
        streaming: open folders and names with `datasets.load_dataset(..., streaming=True)`: Hub sets are then read as
            they are downloaded, and folders may hold anything that `datasets` knows, such as tar shards.

    Raises:
        DataError: a source does not exist or holds no pictures.
    """
    files: list[str] = []
    streams: list[Stream] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            streams += _hub_streams(source, split, streaming)
        elif path.is_file():
            if path.suffix.lower() == PARQUET_SUFFIX:
                streams.append(ParquetStream.open(path))
            else:
                files.append(str(path))
        elif streaming:
            streams += _loaded_streams(source, split, streaming=True)
        elif (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            streams += _dataset_streams(_one_split(datasets.load_from_disk(path), split, source), source)
        else:
            found = sorted(path / name for name in files_below(path))
            pictures = [str(file) for file in found if is_image(file)]
            shards = [file for file in found if file.suffix.lower() == PARQUET_SUFFIX]
            _say_left_out(path, found)
            if not pictures and not shards:
                looked_for = ", ".join([*sorted(IMAGE_SUFFIXES), PARQUET_SUFFIX])
                raise DataError(f"{source}: no image in this folder; looked for {looked_for}")
            files += pictures
            streams += [ParquetStream.open(shard) for shard in shards]
    own: list[Stream] = [FileStream(tuple(files))] if files else []
    return own + streams


def _say_left_out(folder: Path, files: Sequence[Path]) -> None:
    """Warn of the files in a folder that are no pictures, except for annotations."""
    left = [file for file in files if not is_image(file) and file.suffix.lower() not in NO_PICTURES]
    names = [str(file.relative_to(folder)) for file in left]
    say_left_out(folder, names, "file", "that is no picture", "that are no pictures")


def identity(streams: Sequence[Stream]) -> str:
    """Return a hash that changes when the pictures, or their order, change."""
    digest = hashlib.sha256()
    for stream in streams:
        digest.update(stream.identity().encode() + b"\0")
    return digest.hexdigest()[:16]


def _hub_streams(source: str, split: str | None, streaming: bool) -> list[Stream]:
    looks_like_a_file = Path(source).suffix.lower() in IMAGE_SUFFIXES | {PARQUET_SUFFIX}
    if looks_like_a_file or not HUB_NAME.fullmatch(source):
        raise DataError(f"{source}: no such file or folder")
    try:
        return _loaded_streams(source, split, streaming)
    except (OSError, ValueError) as error:  # what datasets raises for a wrong name, or without a network
        if isinstance(error, DataError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source}: no such file or folder, and no data set of the Hub can be read ({reason})"
        ) from None


def _loaded_streams(source: str, split: str | None, streaming: bool) -> list[Stream]:
    return _dataset_streams(_one_split(datasets.load_dataset(source, streaming=streaming), split, source), source)


def _one_split(data: Any, split: str | None, source: str) -> Any:
    if not isinstance(data, dict):
        return data
    if split is None and len(data) == 1:
        return next(iter(data.values()))
    if split not in data:
        problem = "several splits; choose one with --split" if split is None else f"no split '{split}'"
        raise DataError(f"{source}: {problem}; it has {', '.join(data)}")
    return data[split]


def _dataset_streams(data: datasets.Dataset | datasets.IterableDataset, name: str) -> list[Stream]:
    first: dict[str, Any] = next(iter(data.take(1) if isinstance(data, datasets.IterableDataset) else []), {})
    names = data.column_names or list(first)
    features = data.features or {}
    column = image_column(features or names, name)
    if isinstance(features.get(column), datasets.Image):
        data = data.cast_column(column, datasets.Image(decode=False))
    ids = "image_id" in features and getattr(features["image_id"], "dtype", "").startswith("int")
    data = data.select_columns([column] + ["image_id"] * ids)
    if isinstance(data, datasets.Dataset):
        return [DatasetStream(data, name, column, ids)]
    shards = data.num_shards
    return [
        DatasetStream(data.shard(shards, index), f"{name}/{index}" if shards > 1 else name, column, ids)
        for index in range(shards)
    ]
