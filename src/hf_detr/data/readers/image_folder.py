"""Folders of images with a metadata.jsonl, as `datasets` calls them "imagefolder": a line for each image."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from ..schema import SourceImage, SourceSplit, locate
from .layouts import Layout, split_folders, split_named
from .rows import find_columns, names_of_categories, record_from_row

METADATA = "metadata.jsonl"
CLASS_FILE = "classes.txt"


def image_folder_splits(folder: Path) -> dict[str, SourceSplit]:
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
    columns = find_columns(example, folder / METADATA)
    records = {
        split: [_record(row, columns, path, number) for number, (path, _, row) in enumerate(found, start=1)]
        for split, found in lines.items()
    }
    categories = {item.category for found in records.values() for record in found for item in record.objects}
    names = _listed_names(folder, categories) or names_of_categories(categories, folder)
    return {split: SourceSplit(found, names, lines[split][0][0]) for split, found in records.items()}


def _metadata_files(folder: Path) -> dict[str, Path]:
    if (folder / METADATA).is_file():
        return {"train": folder / METADATA}
    found = {split: path / METADATA for split, path in split_folders(folder).items()}
    return {split: path for split, path in found.items() if path.is_file()}


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
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


def _split(row: dict[str, Any], path: Path, folder: Path, default: str) -> str:
    top = Path(row["file_name"]).parts[0] if path.parent == folder and "/" in row["file_name"] else ""
    return split_named(top) or default


def _example(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all columns that the rows have, with a value that is not empty where there is one."""
    example: dict[str, Any] = {}
    for row in rows:
        example |= {name: value for name, value in row.items() if value or name not in example}
    return example


def _record(row: dict[str, Any], columns: Any, path: Path, number: int) -> SourceImage:
    return record_from_row(row, columns, path.parent / row["file_name"], number)


def _listed_names(folder: Path, categories: set[Hashable]) -> dict[Hashable, str]:
    """Return the names of the folder's classes.txt, by index where the categories are numbers."""
    path = folder / CLASS_FILE
    if not path.is_file():
        return {}
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    numbered = any(isinstance(category, int) for category in categories)
    return dict(enumerate(names)) if numbered else {name: name for name in names}


IMAGE_FOLDER_LAYOUT = Layout(
    f"imagefolder: {METADATA} beside the images, or one in each of train/, validation/ and test/",
    lambda folder: "train" in _metadata_files(folder),
    image_folder_splits,
)
