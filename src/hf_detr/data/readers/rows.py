"""Rows with objects, as `datasets` and its image folders have them → records.

Objects stand in a column `objects` (or `annotations`), a list of dicts or a dict of lists, or as columns of their own.
Boxes are (x, y, width, height) in pixels; categories are numbers or names.
"""

import hashlib
import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..schema import SourceImage, SourceObject, locate

CONTAINERS = ("objects", "object", "annotations")
BOXES = ("bbox", "bboxes", "boxes", "box")
CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class", "name")
IDS = ("id", "bbox_id")
CROWDS = ("iscrowd", "is_crowd")
IMAGES = ("image", "img", "picture")
ID_BITS = 52
"""Ids made from pictures fit into the numbers of json."""


@dataclass(frozen=True)
class Columns:
    """Where the objects of a row are: the column that holds them (None: the row does), and their fields."""

    container: str | None
    bbox: str
    category: str


def find_columns(example: Mapping[str, Any], source: str | Path) -> Columns:
    """Find the columns of objects in a row, or in the features of a table.

    Raises:
        DataError: there are no columns of boxes and categories; the error lists what there is.
    """
    for container in (*(name for name in CONTAINERS if name in example), None):
        fields = example.keys() if container is None else _fields(example[container])
        bbox, category = _first(BOXES, fields), _first(CATEGORIES, fields)
        if bbox and category:
            return Columns(container, bbox, category)
    found = {name: sorted(_fields(value)) or "no objects" for name, value in example.items() if name in CONTAINERS}
    raise locate(
        f"expected a column 'objects' of boxes ({', '.join(BOXES)}) and categories ({', '.join(CATEGORIES)}); found "
        f"the columns {sorted(example)}" + (f", with the fields {found}" if found else ""),
        source,
    )


def record_from_row(row: Mapping[str, Any], columns: Columns, image: Any, image_id: int) -> SourceImage:
    """Return a row as a record.

    Args:
        row: one row, images not decoded.
        columns: where its objects are.
        image: a path or what `datasets.Image` encodes.
        image_id: for rows that have no integer id.
    """
    given = row.get("image_id")
    objects = [
        SourceObject(
            id=next((item[name] for name in IDS if item.get(name) is not None), number),
            bbox=item.get(columns.bbox),
            category=hashable(item.get(columns.category)),
            area=item.get("area"),
            iscrowd=next((item[name] for name in CROWDS if item.get(name) is not None), 0),
        )
        for number, item in enumerate(_items(row, columns), start=1)
    ]
    image_id = given if isinstance(given, int) else image_id
    return SourceImage(image, image_id, row.get("width"), row.get("height"), objects)


def stored_image(value: Any, folder: Path | None = None) -> Any:
    """Return an image as rows hold it, undecoded (path, bytes or both), as a record does; paths are in the folder."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, Mapping) and value.get("bytes") is None:
        value = value.get("path")
    if isinstance(value, str):
        return folder / value if folder is not None else Path(value)
    return value


def id_from_image(image: Any) -> int:
    """Return an id that depends on nothing but the stored picture, for rows without one in no certain order."""
    content = image["bytes"] if isinstance(image, Mapping) else str(image).encode()
    return int.from_bytes(hashlib.sha256(content or b"").digest()[:8]) >> (64 - ID_BITS)


def names_of_categories(categories: Iterable[Hashable], source: str | Path) -> dict[Hashable, str]:
    """Return names for categories that come without: names are their own; numbers keep theirs, with a warning."""
    found = set(categories) - {None}
    numbers = sorted(key for key in found if isinstance(key, int))
    if numbers:
        warnings.warn(
            f"{source}: categories are numbers without names, and are named by them: {numbers[:10]}"
            f"{'…' * (len(numbers) > 10)}. Write names, or give the column the feature ClassLabel",
            stacklevel=2,
        )
    named = sorted(key for key in found if isinstance(key, str))
    return {key: str(key) for key in [*numbers, *named]}


def hashable(value: Any) -> Hashable:
    """Return a category key, whatever the file has; what cannot be one becomes its text."""
    return value if value is None or isinstance(value, int | str) else repr(value)


def image_column(names: Collection[str], source: str | Path) -> str:
    """Return the column of the images.

    Raises:
        DataError: there is none.
    """
    found = _first(IMAGES, names)
    if found is None:
        raise locate(f"expected a column 'image', found the columns {sorted(names)}", source)
    return found


def _first(names: Iterable[str], available: Collection[str]) -> str | None:
    return next((name for name in names if name in available), None)


def _fields(value: Any) -> Collection[str]:
    """Return the fields of objects, given as a dict of lists, a list of dicts, or a feature of either kind."""
    value = getattr(value, "feature", value)
    if isinstance(value, Mapping):
        return value.keys()
    if isinstance(value, list | tuple):
        return {name for item in value if isinstance(item, Mapping) for name in item}
    return ()


def _items(row: Mapping[str, Any], columns: Columns) -> list[Mapping[str, Any]]:
    value = row if columns.container is None else row.get(columns.container)
    if isinstance(value, list | tuple):
        return [item if isinstance(item, Mapping) else {columns.bbox: item} for item in value]
    if not isinstance(value, Mapping):
        return []
    known = {columns.bbox, columns.category, "area", *CROWDS, *(IDS if columns.container else ())}
    lists = {name: values for name, values in value.items() if name in known and isinstance(values, list | tuple)}
    return [dict(zip(lists, values, strict=True)) for values in zip_longest(*lists.values())]
