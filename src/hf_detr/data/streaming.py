"""Gives detection data as streams of rows of the schema, for sets that are never held as a whole."""

import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import IterableDataset, IterableDatasetDict

from .images import undecoded
from .loading import layout_of, load_detection_data
from .options import ReadOptions
from .readers.rows import Columns, find_columns, id_from_image, image_column, record_from_row, stored_image
from .readers.tables import HUB_NAME, TABLE_LAYOUT, declared_ids, declared_names, folder_tables, hub_tables
from .record_checks import check_streamed_record
from .remarks import say_one_class
from .schema import DataError, detection_features, locate

STREAM_SHARDS = 64
"""The number of parts into which a set is cut that is no stream by itself, so that ranks and workers can share it."""


def load_streaming_data(data: str | Path, seed: int = 0, options: ReadOptions | None = None) -> IterableDatasetDict:
    """Return detection data as streams of rows of the schema, images left undecoded (see `decode_image`).

    A data set on the Hub and a folder of parquet files are read while they are used, row by row, and each row is
    checked when its turn comes. Their categories must have the feature ClassLabel. Nothing is split off a stream: a
    validation split is returned where there is one, else the test split in its place. A row without an integer
    `image_id` gets one made from its picture, so that it is the same on every rank and at every restart.

    All other data are read and checked as a whole, by `load_detection_data`, and then streamed.

    Args:
        data: the data, as `load_detection_data` takes them.
        seed: see `load_detection_data`; it is used where the data are read as a whole.
        options: see `load_detection_data`. Boxes of a stream are clipped without a count, and
            a warning names each row that is left out when its turn comes.

    Raises:
        DataError: see `load_detection_data`. While a stream is used, a row is unusable; the message names split and
            row.
    """
    tables = _tables(data)
    if tables is None:
        splits = load_detection_data(data, seed, options)
        return IterableDatasetDict(
            {
                name: undecoded(dataset).to_iterable_dataset(num_shards=min(STREAM_SHARDS, len(dataset)))
                for name, dataset in splits.items()
            }
        )
    if "validation" not in tables and "test" in tables:
        warnings.warn(f"{data}: no validation split found; the test split is used for validation", stacklevel=2)
        tables = {"train": tables["train"], "validation": tables["test"]}
    names = list(_declared_names(tables["train"], data).values())
    ids = declared_ids(tables["train"].features, find_columns(tables["train"].features, data))
    options = options or ReadOptions()
    return IterableDatasetDict(
        {split: _checked(table, names, ids, f"{data} ({split})", options) for split, table in tables.items()}
    )


def _tables(data: str | Path) -> Mapping[str, IterableDataset] | None:
    """Return the tables of data that are read while they are used, or None where they are read as a whole."""
    if Path(data).exists():
        layout, folder = layout_of(Path(data))
        return folder_tables(folder, streaming=True) if layout is TABLE_LAYOUT else None
    is_hub = isinstance(data, str) and HUB_NAME.fullmatch(data) and not re.match("synthetic(:|$)", data)
    return hub_tables(str(data), streaming=True) if is_hub else None


def _declared_names(table: IterableDataset, source: str | Path) -> dict[Hashable, str]:
    features = table.features
    if features is None:
        raise locate("expected features, to know the classes before the rows, found none", source)
    columns = find_columns(features, source)
    if columns.category is None:
        say_one_class(source)
    names = declared_names(features, columns)
    if not names:
        raise locate(
            "expected categories with the feature ClassLabel, since a stream cannot be searched for its classes; load "
            "the data without streaming, or cast the column",
            source,
        )
    return names


def _checked(
    table: IterableDataset,
    names: Sequence[str],
    ids: Mapping[str, int | str] | None,
    source: str,
    options: ReadOptions,
) -> IterableDataset:
    """Return the rows of a table as rows of the schema, checked one by one."""
    columns, image = find_columns(table.features, source), image_column(table.features, source)
    own = declared_names(table.features, columns) or _declared_names(table, source)
    unknown = [name for name in own.values() if name not in names]
    if unknown:
        raise locate(f"the classes {unknown} are not among the classes of the training data, {list(names)}", source)
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    features = detection_features(names, category_ids=ids)
    features["image"] = datasets.Image(decode=False)
    return table.map(
        partial(
            _rows,
            columns=columns,
            column=image,
            labels={key: names.index(name) for key, name in own.items()},
            source=source,
            options=options,
        ),
        with_indices=True,
        batched=True,  # a batch may return fewer rows than it was given, as one that is left out needs
        batch_size=1,
        remove_columns=[name for name in table.features if name not in features],
        features=features,
    )


def _rows(batch: Mapping[str, list], indices: Sequence[int], options: ReadOptions, **how: Any) -> dict[str, list]:
    """Return the checked row of a batch of one, or no row where it is unusable and to be left out."""
    try:
        checked = _row({name: values[0] for name, values in batch.items()}, indices[0], options=options, **how)
    except DataError as error:
        if not options.skip_unusable:
            raise
        warnings.warn(f"{how['source']}: left out {error}", stacklevel=2)
        return {name: [] for name in detection_features([""])}
    return {name: [value] for name, value in checked.items()}


def _row(
    row: Mapping[str, Any],
    index: int,
    columns: Columns,
    column: str,
    labels: Mapping[Hashable, int],
    source: str,
    options: ReadOptions,
) -> dict[str, Any]:
    try:
        stored = stored_image(row[column])
        record = record_from_row(row, columns, stored, id_from_image(stored))
        checked = check_streamed_record(record, labels, source, options)
    except DataError as error:
        raise locate(f"row {index + 1}: {error}") from error
    image = stored if isinstance(stored, Mapping) else {"bytes": None, "path": str(stored)}
    return {**checked, "image": image}
