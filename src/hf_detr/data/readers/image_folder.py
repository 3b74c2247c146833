"""Reads folders of images with a metadata.jsonl of one line for each image, which `datasets` calls "imagefolder"."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from ..remarks import ONE_CLASS, say_one_class
from ..schema import SourceImage, SourceSplit, locate
from .folder import DataFolder
from .layouts import Layout, picture_folders, split_folders
from .rows import NO_CATEGORY, Columns, find_columns, names_of_categories, record_from_row
from .splits_by_name import split_named
from .text import read_lines, read_text

METADATA = "metadata.jsonl"
CLASS_FILE = "classes.txt"


def image_folder_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read the metadata.jsonl of a folder, or of its folders train/, validation/ and test/.

    A single one may list the images of all splits, `file_name` beginning with the folder of each. Categories are names
    or numbers; a classes.txt, a name in each line, names the numbers 0, 1, ... or puts the names in order. Images
    without an `image_id` are numbered from 1 within a split.

    Raises:
        DataError: a line is no json object or has no `file_name`, or no line tells where objects are.
    """
    lines: dict[str, list[tuple[Path, int, dict]]] = {}
    for default, path in _metadata_files(folder).items():
        for number, row in _rows(path):
            lines.setdefault(_split(row, path, folder, default), []).append((path, number, row))
    example = _example([row for found in lines.values() for *_, row in found])
    columns = find_columns(example, folder.path / METADATA)
    records = {split: _records(found, columns, folder, split) for split, found in lines.items()}
    if columns.category is None:
        say_one_class(folder.path)
    categories = {item.category for found in records.values() for record in found for item in record.objects}
    names = {NO_CATEGORY: ONE_CLASS} if columns.category is None else _listed_names(folder.path, categories)
    names = names or names_of_categories(categories, folder.path)
    return {split: SourceSplit(found, names, lines[split][0][0]) for split, found in records.items()}


def _metadata_files(folder: DataFolder) -> dict[str, Path]:
    if folder.given is not None:
        return {"train": folder.given} if folder.given.suffix.lower() == ".jsonl" else {}
    if (folder.path / METADATA).is_file():
        return {"train": folder.path / METADATA}
    found = {split: path / METADATA for split, path in split_folders(folder).items()}
    return {split: path for split, path in found.items() if path.is_file()}


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for number, line in enumerate(read_text(path, replace=True).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise locate(f"line {number}: expected a json object, but this is not json ({error})", path) from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise locate(f"line {number}: expected a json object with a 'file_name', got {line[:100]}", path)
        found.append((number, row))
    return found


def _split(row: dict[str, Any], path: Path, folder: DataFolder, default: str) -> str:
    top = Path(row["file_name"]).parts[0] if path.parent == folder.path and "/" in row["file_name"] else ""
    return split_named(top) or default


def _example(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all columns that the rows have, with a value that is not empty where there is one."""
    example: dict[str, Any] = {}
    for row in rows:
        example |= {name: value for name, value in row.items() if value or name not in example}
    return example


def _records(
    lines: list[tuple[Path, int, dict[str, Any]]], columns: Columns, folder: DataFolder, split: str
) -> list[SourceImage]:
    places = list(dict.fromkeys(path.parent for path, *_ in lines))
    images = folder.find_all(
        [row["file_name"] for *_, row in lines], [*places, *picture_folders(folder, split)], split
    )
    return [
        record_from_row(row, columns, image, number)
        for number, ((*_, row), image) in enumerate(zip(lines, images, strict=True), start=1)
    ]


def _listed_names(folder: Path, categories: set[Hashable]) -> dict[Hashable, str]:
    """Return the names of the folder's classes.txt, by index where the categories are numbers."""
    path = folder / CLASS_FILE
    if not path.is_file():
        return {}
    names = read_lines(path)
    numbered = any(isinstance(category, int) for category in categories)
    return dict(enumerate(names)) if numbered else {name: name for name in names}


IMAGE_FOLDER_LAYOUT = Layout(
    f"imagefolder: {METADATA} beside the images, or one in each of train/, validation/ and test/",
    lambda folder: "train" in _metadata_files(folder),
    image_folder_splits,
)
