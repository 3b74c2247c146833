"""Data sets of the library `datasets`: saved folders, parquet shards and the Hub.

They are rows with an image and a column of objects, bounding boxes as (x, y, width, height) in pixels, as in
`rishitdagli/cppe-5`. Their images stay where they are stored.
"""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset

from ..images import undecoded
from ..schema import SourceImage, SourceSplit, locate
from .layouts import Layout, split_named
from .rows import Columns, find_columns, hashable, image_column, names_of_categories, record_from_row, stored_image

SAVED = ("dataset_dict.json", "state.json")
HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(:(?P<subset>[\w.-]+))?")


@dataclass(frozen=True)
class TableRecords(Sequence[SourceImage]):
    """The rows of a table as records, read when they are asked for; those without an id are numbered from 1."""

    table: Dataset
    columns: Columns
    image: str
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> SourceImage:
        return self._record(index, self.table[index])

    def __iter__(self) -> Iterator[SourceImage]:
        return (self._record(index, row) for index, row in enumerate(self.table))

    def _record(self, index: int, row: Mapping[str, Any]) -> SourceImage:
        return record_from_row(row, self.columns, stored_image(row[self.image], self.folder), index + 1)


def table_splits(tables: Mapping[str, Dataset], source: str | Path) -> dict[str, SourceSplit]:
    """Return tables as splits.

    Classes are those of the feature ClassLabel, else the names or numbers that the rows hold.

    Raises:
        DataError: a table has no columns of images or objects.
    """
    folder = source if isinstance(source, Path) else None
    records, names = {}, {}
    for split, table in tables.items():
        columns, image = find_columns(table.features, source), image_column(table.features, source)
        records[split] = TableRecords(undecoded(table), columns, image, folder)
        names |= declared_names(table.features, columns) or dict.fromkeys(_categories(table, columns))
    if None in names.values():
        names = names_of_categories(names, source)
    return {
        split: SourceSplit(found, names, f"{source} ({split})", _pictures(found)) for split, found in records.items()
    }


def declared_names(features: Features, columns: Columns) -> dict[Hashable, str]:
    """Return the class names by label where the categories have the feature ClassLabel, else nothing."""
    feature = features if columns.container is None else features[columns.container]
    feature = getattr(feature, "feature", feature)[columns.category]
    feature = getattr(feature, "feature", feature)
    return dict(enumerate(feature.names)) if isinstance(feature, ClassLabel) else {}


def _categories(table: Dataset, columns: Columns) -> set[Hashable]:
    name = columns.container or columns.category
    found: set[Hashable] = set()
    for value in table.select_columns([name])[name]:
        if columns.container is None:
            found.update(hashable(item) for item in value or ())
        elif isinstance(value, Mapping):
            found.update(hashable(item) for item in value[columns.category] or ())
        else:
            found.update(hashable(item.get(columns.category)) for item in value or ())
    return found


def _pictures(records: TableRecords) -> Dataset | None:
    """Return the images as a data set of their own, unless the table has only their paths."""
    if not len(records) or isinstance(records[0].image, Path):
        return None
    pictures = records.table.select_columns([records.image])
    if records.image != "image":
        pictures = pictures.rename_column(records.image, "image")
    return pictures.cast_column("image", datasets.Image())


# Where the tables are


def named_splits(tables: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Return tables by the names of our splits; a single one, whatever its name, is for training.

    Raises:
        DataError: none of several is named like a training split.
    """
    found = {split: table for name, table in tables.items() if (split := split_named(name))}
    if len(tables) == 1:
        found = {"train": next(iter(tables.values()))}
    if "train" not in found:
        raise locate(f"expected a split 'train', found {list(tables)}", source)
    return found


def hub_tables(data: str, streaming: bool = False) -> Mapping[str, Dataset | IterableDataset]:
    """Load a data set from the Hub, "owner/name" or "owner/name:subset".

    Raises:
        DataError: there is no such data set, or it cannot be reached or read; with the remedy.
    """
    match = HUB_NAME.fullmatch(data)
    try:
        tables = datasets.load_dataset(match["name"], match["subset"], streaming=streaming)
    except Exception as error:  # the library raises nearly everything: of networks, files, arrow, its own
        reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
        raise locate(
            f"there is no such folder, and no data set of this name could be loaded from the Hub ({reason}). For one "
            "on the Hub, check the name and the network, and log in with `hf auth login` if it is private",
            data,
        ) from error
    return named_splits(tables, data)


def folder_tables(folder: Path, streaming: bool = False) -> Mapping[str, Dataset | IterableDataset]:
    """Load the tables of a folder: one written by `save_to_disk`, or one of parquet files named like their splits.

    Raises:
        DataError: the files cannot be read.
    """
    try:
        if any((folder / name).is_file() for name in SAVED):
            tables = datasets.load_from_disk(folder)
            tables = tables if isinstance(tables, DatasetDict) else {"train": tables}
            if streaming:
                tables = {name: table.to_iterable_dataset() for name, table in tables.items()}
        else:
            files = _parquet_files(folder)
            tables = datasets.load_dataset("parquet", data_files=files, streaming=streaming)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise locate(
            f"expected a data set of the library 'datasets', but it cannot be read ({cause})", folder
        ) from error
    return named_splits(tables, folder)


def _parquet_files(folder: Path) -> dict[str, list[str]]:
    """Return the parquet files by split: that of the file's name or else of its folder, else the training data."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        inner = path.parent.name if path.parent != folder else ""
        found.setdefault(split_named(path.stem) or split_named(inner) or "train", []).append(str(path))
    return found


def holds_tables(folder: Path) -> bool:
    """Return whether a folder is one that `folder_tables` reads."""
    return any((folder / name).is_file() for name in SAVED) or next(folder.rglob("*.parquet"), None) is not None


TABLE_LAYOUT = Layout(
    "datasets: a folder written by `save_to_disk`, or parquet files such as train-00000-of-00001.parquet, with a "
    "column `objects`",
    holds_tables,
    lambda folder: table_splits(folder_tables(folder), folder),
)
