"""Reads data sets of the library `datasets`: saved folders, parquet shards and the Hub.

They are rows with an image and a column of objects, bounding boxes as (x, y, width, height) in pixels, as in
`rishitdagli/cppe-5`. Their images stay where they are stored.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset

from ..images import undecoded
from ..remarks import ONE_CLASS, say_left_out, say_one_class
from ..schema import LazyRecords, SourceImage, SourceSplit, ids_in, locate
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .rows import (
    NO_CATEGORY,
    Columns,
    find_columns,
    hashable,
    image_column,
    names_of_categories,
    record_from_row,
    stored_image,
)
from .splits_by_name import split_named

SAVED = ("dataset_dict.json", "state.json")
KNOWN_SPLITS = ("train", "validation", "test")
HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(:(?P<subset>[\w.-]+))?")


@dataclass(frozen=True)
class TableRecords(LazyRecords):
    """The rows of a table as records, read when they are asked for. Rows without an id are numbered from 1."""

    table: Dataset
    columns: Columns
    image: str
    folder: DataFolder | None = None

    def __len__(self) -> int:
        return len(self.table)

    def record(self, index: int) -> SourceImage:
        """Read the row at an index."""
        return self._record(index, self.table[index])

    def __iter__(self) -> Iterator[SourceImage]:
        return (self._record(index, row) for index, row in enumerate(self.table))

    def _record(self, index: int, row: Mapping[str, Any]) -> SourceImage:
        return record_from_row(row, self.columns, stored_image(row[self.image], self.folder), index + 1)


def table_splits(
    tables: Mapping[str, Dataset], source: str | Path, folder: DataFolder | None = None
) -> dict[str, SourceSplit]:
    """Return tables as splits; paths of images are looked for in the folder.

    The classes come from the feature ClassLabel, else they are the names or numbers that the rows hold. Where rows
    hold neither, all objects are of one class, "object".

    Raises:
        DataError: a table has no columns of images or objects.
    """
    records: dict[str, TableRecords] = {}
    names: dict[Hashable, Any] = {}
    ids: dict[str, int | str] = {}
    for split, table in tables.items():
        columns, image = find_columns(table.features, source), image_column(table.features, source)
        records[split] = TableRecords(undecoded(table), columns, image, folder)
        names |= declared_names(table.features, columns) or dict.fromkeys(_categories(table, columns))
        ids |= declared_ids(table.features, columns) or {}
        if columns.category is None:
            say_one_class(f"{source} ({split})")
    if None in names.values():
        names = names_of_categories(names, source)
    stated = ids if ids and set(ids) == set(names.values()) else None
    return {
        split: SourceSplit(found, names, f"{source} ({split})", _pictures(found), stated_ids=stated)
        for split, found in records.items()
    }


def declared_names(features: Features, columns: Columns) -> dict[Hashable, str]:
    """Return the class names by label where the categories have the feature ClassLabel, else nothing.

    Objects without categories are all of the class "object".
    """
    if columns.category is None:
        return {NO_CATEGORY: ONE_CLASS}
    categories = _class_label(features, columns)
    return {} if categories is None else dict(enumerate(categories.names))


def declared_ids(features: Features, columns: Columns) -> dict[str, int | str] | None:
    """Return the category ids that a data set of this package was saved with, by name; None where there are none."""
    categories = _class_label(features, columns)
    return None if categories is None else ids_in(categories)


def _class_label(features: Features, columns: Columns) -> ClassLabel | None:
    if columns.category is None:
        return None
    feature = features if columns.container is None else features[columns.container]
    feature = getattr(feature, "feature", feature)[columns.category]
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, ClassLabel) else None


def _categories(table: Dataset, columns: Columns) -> set[Hashable]:
    name = columns.container or columns.category
    found: set[Hashable] = set()
    for value in table.select_columns([name])[name]:
        if columns.container is None:
            found.update(hashable(item) for item in (value if isinstance(value, list | tuple) else [value]))
        elif isinstance(value, Mapping):
            found.update(hashable(item) for item in value[columns.category] or ())
        else:
            found.update(hashable(item.get(columns.category)) for item in value or ())
    return found


def _pictures(records: TableRecords) -> Dataset | None:
    """Return the images as a data set of their own, or None where the table has only their paths."""
    if not len(records) or isinstance(records[0].image, Path):
        return None
    pictures = records.table.select_columns([records.image])
    if records.image != "image":
        pictures = pictures.rename_column(records.image, "image")
    return pictures.cast_column("image", datasets.Image())


# Where the tables are


def named_splits(tables: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Return tables by the names of our splits. A single table is for training, whatever its name.

    Of several tables whose names speak of one split, the first is taken; a warning names the tables that are left out.

    Raises:
        DataError: none of several is named like a training split.
    """
    if len(tables) == 1:
        return {"train": next(iter(tables.values()))}
    found: dict[str, str] = {}
    for name in sorted(tables, key=lambda name: name not in KNOWN_SPLITS):
        split = split_named(name)
        if split:
            found.setdefault(split, name)
    if "train" not in found:
        raise locate(f"expected a split 'train', found {list(tables)}", source)
    say_left_out(source, [name for name in tables if name not in found.values()], "split", "of another name")
    return {split: tables[name] for split, name in found.items()}


def hub_tables(data: str, streaming: bool = False) -> Mapping[str, Dataset | IterableDataset]:
    """Load a data set from the Hub, "owner/name" or "owner/name:subset".

    Raises:
        DataError: there is no such data set, or it cannot be reached or read; the message says what helps.
    """
    match = HUB_NAME.fullmatch(data)
    if match is None:
        raise locate("expected the name of a data set on the Hub, owner/name or owner/name:subset", data)
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


def folder_tables(folder: DataFolder, streaming: bool = False) -> Mapping[str, Dataset | IterableDataset]:
    """Load the tables of a folder: one written by `save_to_disk`, or one of parquet files named like their splits.

    Raises:
        DataError: the files cannot be read.
    """
    try:
        if _is_saved(folder):
            tables = datasets.load_from_disk(folder.path)
            tables = tables if isinstance(tables, DatasetDict) else {"train": tables}
            if streaming:
                tables = {name: table.to_iterable_dataset() for name, table in tables.items()}
        else:
            files = {split: [str(path) for path in paths] for split, paths in _parquet_files(folder).items()}
            tables = datasets.load_dataset("parquet", data_files=files, streaming=streaming)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise locate(
            f"expected a data set of the library 'datasets', but it cannot be read ({cause})", folder.path
        ) from error
    return named_splits(tables, folder.path)


def _is_saved(folder: DataFolder) -> bool:
    return folder.given is None and any((folder.path / name).is_file() for name in SAVED)


def _parquet_files(folder: DataFolder) -> dict[str, list[Path]]:
    return files_by_split(folder, ".parquet", lambda _: True)


TABLE_LAYOUT = Layout(
    "datasets: a folder written by `save_to_disk`, or parquet files such as train-00000-of-00001.parquet, with a "
    "column `objects`",
    lambda folder: _is_saved(folder) or bool(_parquet_files(folder)),
    lambda folder: table_splits(folder_tables(folder), folder.path, folder),
)
