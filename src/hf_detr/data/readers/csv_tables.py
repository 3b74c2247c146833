"""Reads tables of text with a line for each object, as TensorFlow, Roboflow, Kaggle, OpenImages and RetinaNet use.

The first line names the columns; `COLUMNS` lists the names that are understood, in small letters. A table without such
a line is read as a table of RetinaNet: path, left, top, right, bottom, class.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..box_formats import BoxFormat
from ..images import is_image
from ..remarks import ONE_CLASS, say_one_class
from ..schema import SourceSplit, locate
from .entries import Entry, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .splits_by_name import split_named
from .text import number, read_first_line, read_text

COLUMNS = {
    "picture": (
        *("filename", "file_name", "image_path", "path", "filepath", "file", "image", "img", "image_name"),
        *("image_id", "imageid", "external_id"),
    ),
    "class": (
        *("class", "class_name", "classname", "label", "label_name", "labelname", "category", "category_name"),
        *("name", "class_id", "category_id", "object", "species"),
    ),
    "left": ("xmin", "x_min", "x1", "left", "bbox_x1", "bbox_xmin"),
    "top": ("ymin", "y_min", "y1", "top", "bbox_y1", "bbox_ymin"),
    "right": ("xmax", "x_max", "x2", "right", "bbox_x2", "bbox_xmax"),
    "bottom": ("ymax", "y_max", "y2", "bottom", "bbox_y2", "bbox_ymax"),
    "x": ("x", "bbox_x", "box_x"),
    "y": ("y", "bbox_y", "box_y"),
    "w": ("w", "bbox_w", "bbox_width", "box_w", "width", "box_width"),
    "h": ("h", "bbox_h", "bbox_height", "box_h", "height", "box_height"),
    "box": ("bbox", "box", "bounding_box", "boundingbox"),
    "image_width": ("image_width", "img_width", "image_w", "width"),
    "image_height": ("image_height", "img_height", "image_h", "height"),
    "split": ("split", "set", "subset"),
}
CORNERS = ("left", "top", "right", "bottom")
SIDES = ("x", "y", "w", "h")
OPENIMAGES = {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"}
"""Columns of OpenImages, whose boxes are shares of the image's size."""
OPENIMAGES_CLASSES = "class-descriptions"
OWN = ("width", "height")
"""Columns that hold the size of the box beside x and y, and the size of the image beside corners."""
RETINANET = {name: index for index, name in enumerate(("picture", *CORNERS, "class"))}


@dataclass(frozen=True)
class Table:
    """The rows of a file; `columns` holds the position of each column by its meaning."""

    path: Path
    rows: Sequence[Sequence[str]]
    columns: Mapping[str, int]
    box_format: BoxFormat = "xywh"
    first_line: int = 2

    def value(self, row: Sequence[str], name: str) -> str:
        """Return the text of a row in a column, "" where there is none."""
        index = self.columns.get(name, len(row))
        return row[index].strip() if index < len(row) else ""


def csv_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read the tables of a folder, its splits by the names of files and folders or by a column `split`.

    A row without a box is an image without objects. Without a column of classes all objects are of one, "object".

    Raises:
        DataError: a row lacks its image, or a box is no four numbers.
    """
    entries: dict[str, dict[str, Entry]] = defaultdict(dict)
    titles = _openimages_titles(folder)
    for split, paths in files_by_split(folder, ".csv", _is_table).items():
        for path in paths:
            table = _table(path)
            if "class" not in table.columns:
                say_one_class(path)
            for line, row in enumerate(table.rows, start=table.first_line):
                if any(cell.strip() for cell in row):
                    own = split_named(table.value(row, "split")) or split
                    _add(entries[own], table, row, line, titles)
    return splits_from_entries(folder, {split: list(found.values()) for split, found in entries.items()})


def _is_table(path: Path) -> bool:
    line = read_first_line(path)
    first = next(csv.reader([line], delimiter=_delimiter(line)), [])
    return _columns(first) is not None or (len(first) == len(RETINANET) and is_image(first[0].strip()))


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _table(path: Path) -> Table:
    text = read_text(path)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0])))
    columns = _columns(rows[0])
    if columns is None:
        return Table(path, rows, RETINANET, "xyxy", first_line=1)
    corners: BoxFormat = "xyxyn" if set(rows[0]) >= OPENIMAGES else "xyxy"
    return Table(path, rows[1:], columns, corners if set(CORNERS) <= set(columns) else "xywh")


def _columns(first: Sequence[str]) -> dict[str, int] | None:
    """Return where the columns are, given the first row of a table, or None if it names none."""
    names = [name.strip().casefold() for name in first]
    columns = {
        kind: found[0] for kind, known in COLUMNS.items() if (found := [names.index(n) for n in known if n in names])
    }
    corners, sides = set(CORNERS) <= set(columns), set(SIDES) <= set(columns)
    if corners:  # beside corners, width and height are the size of the image
        columns = {kind: place for kind, place in columns.items() if kind not in SIDES}
    elif sides:
        columns = {k: place for k, place in columns.items() if not (k.startswith("image_") and names[place] in OWN)}
    if "picture" in columns and (corners or sides or "box" in columns):
        return columns
    return None


def missing_column(path: Path) -> str | None:
    """Return what is wrong with a table that is almost of a known form, because a column is missing, else None."""
    line = read_first_line(path)
    first = [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]
    names = [name.casefold() for name in first]
    if _columns(first) is not None:
        return None
    for kinds in (("picture", *CORNERS), ("picture", *SIDES)):
        found = {kind: name for kind in kinds for name in COLUMNS[kind] if name in names}
        missing = [kind for kind in kinds if kind not in found]
        if len(missing) == 1:
            styles = [COLUMNS[kind].index(name) for kind, name in found.items() if kind in CORNERS]
            style = styles[0] if styles and missing[0] in CORNERS else 0
            return f"column '{COLUMNS[missing[0]][style]}' is missing; found {', '.join(first)}"
    return None


def _add(entries: dict[str, Entry], table: Table, row: Sequence[str], line: int, titles: Mapping[str, str]) -> None:
    name = table.value(row, "picture")
    if not name:
        raise locate(f"line {line}: expected the name of an image, got {','.join(row)[:100]}", table.path)
    entry = entries.get(name)
    if entry is None:
        width, height = (number(table.value(row, f"image_{side}")) or None for side in ("width", "height"))
        entry = entries[name] = Entry(name, table.path, width, height)
    box = _box(table, row)
    if box is not None:
        title = table.value(row, "class") if "class" in table.columns else ONE_CLASS
        entry.add(box, titles.get(title, title) or None, table.box_format)


def _box(table: Table, row: Sequence[str]) -> Any:
    """Return the four numbers of a row, or None where it has none."""
    if table.box_format == "xywh" and "box" in table.columns:
        text = table.value(row, "box")
        return _listed(text) if text and text.casefold() != "nan" else None
    names = SIDES if table.box_format == "xywh" else CORNERS
    values = [number(table.value(row, name)) for name in names]
    return None if all(value == "" or str(value) == "nan" for value in values) else values


def _listed(text: str) -> Any:
    """Return the numbers of a cell such as "[834.0, 222.0, 56.0]", or its text for the check to complain about."""
    inner = text.strip().strip("[]()")
    try:
        return json.loads(f"[{inner}]") if "," in inner else [float(word) for word in inner.split()]
    except ValueError:
        return text


def _openimages_titles(folder: DataFolder) -> dict[str, str]:
    """Return the words for classes of OpenImages such as /m/01g317, from the file that comes with them."""
    root = folder.path
    for path in sorted(root.glob(f"**/*{OPENIMAGES_CLASSES}*.csv")) if folder.given is None else ():
        rows = csv.reader(io.StringIO(read_text(path)))
        return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    return {}


CSV_LAYOUT = Layout(
    "a csv of objects: filename, class, xmin, ymin, xmax, ymax (TensorFlow, Roboflow: _annotations.csv), or image_id "
    "and bbox (Kaggle)",
    lambda folder: bool(files_by_split(folder, ".csv", _is_table)),
    csv_splits,
)
