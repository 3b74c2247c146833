"""Turns rows with objects, as `datasets` and its image folders have them, into records.

Objects stand in a column `objects` (or `annotations`), a list of dicts or a dict of lists, or as columns of their own.
Boxes are (x, y, width, height) in pixels, unless fields such as xmin and xmax say something else; categories are
numbers or names.
"""

import hashlib
import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets

from ..box_formats import BoxFormat
from ..schema import SourceImage, SourceObject, locate
from .folder import DataFolder
from .layouts import picture_folders

CONTAINERS = ("objects", "object", "annotations", "annotation", "detections", "ground_truth", "targets", "faces")
"""Columns that are looked at first; any other column that holds boxes is taken as well."""
BOXES = ("bbox", "bboxes", "boxes", "box", "bounding_box", "bounding_boxes")
SEPARATE_BOXES: tuple[tuple[tuple[str, str, str, str], BoxFormat], ...] = (
    (("xmin", "ymin", "xmax", "ymax"), "xyxy"),
    (("x_min", "y_min", "x_max", "y_max"), "xyxy"),
    (("x1", "y1", "x2", "y2"), "xyxy"),
    (("left", "top", "right", "bottom"), "xyxy"),
    (("x", "y", "width", "height"), "xywh"),
    (("x", "y", "w", "h"), "xywh"),
)
"""Fields that hold a box together, and the format of their four numbers."""
CATEGORIES = (
    *("category", "categories", "label", "labels", "class", "classes", "class_label", "class_labels"),
    *("category_name", "category_names", "class_name", "class_names", "label_name", "name", "names"),
    *("category_id", "category_ids", "class_id", "class_ids", "label_id", "label_ids"),
)
IDS = ("id", "bbox_id", "object_id", "annotation_id")
CROWDS = ("iscrowd", "is_crowd")
IMAGES = (
    *("image", "img", "picture", "pixel_values", "images", "jpg", "jpeg", "png", "webp"),
    *("image_path", "path", "file_name", "filename", "file", "filepath", "image_file"),
)
NO_CATEGORY = 0
"""The key of the only class of objects that come without categories."""
ID_BITS = 52
"""Ids made from pictures fit into the numbers of json."""


@dataclass(frozen=True)
class Columns:
    """The columns in which the objects of a row are.

    Attributes:
        container: the column that holds them, or None where the row itself does.
        boxes: the field of their boxes, or the four fields that hold a box together.
        category: the field of their categories, or None where they have none.
        box_format: the format of the four numbers of a box.
    """

    container: str | None
    boxes: tuple[str, ...]
    category: str | None
    box_format: BoxFormat = "xywh"


def find_columns(example: Mapping[str, Any], source: str | Path) -> Columns:
    """Find the columns of objects in a row, or in the features of a table.

    Raises:
        DataError: there is no column of boxes; the error lists what there is.
    """
    ordered = sorted(example, key=lambda name: CONTAINERS.index(name) if name in CONTAINERS else len(CONTAINERS))
    for container in (*ordered, None):
        fields = example.keys() if container is None else _fields(example[container])
        for boxes, box_format in (*(((name,), "xywh") for name in BOXES), *SEPARATE_BOXES):
            if set(boxes) <= set(fields) and (container is not None or not {"width", "height"} & set(boxes)):
                return Columns(container, boxes, _first(CATEGORIES, fields), box_format)
    found = {name: sorted(_fields(value)) or "no objects" for name, value in example.items() if name in CONTAINERS}
    raise locate(
        f"expected a column 'objects' of boxes ({', '.join(BOXES)}) and categories ({', '.join(CATEGORIES[:6])}); "
        f"found the columns {sorted(example)}" + (f", with the fields {found}" if found else ""),
        source,
    )


def record_from_row(row: Mapping[str, Any], columns: Columns, image: Any, image_id: int) -> SourceImage:
    """Return a row as a record.

    Args:
        row: one row, images not decoded.
        columns: where its objects are.
        image: a path or what `datasets.Image` encodes.
        image_id: the id for rows that have no integer id.
    """
    given = row.get("image_id")
    objects = [
        SourceObject(
            id=next((item[name] for name in IDS if item.get(name) is not None), number),
            bbox=_box(item, columns),
            category=NO_CATEGORY if columns.category is None else hashable(item.get(columns.category)),
            area=item.get("area"),
            iscrowd=next((int(item[name]) for name in CROWDS if item.get(name) is not None), 0),
            box_format=columns.box_format,
        )
        for number, item in enumerate(_items(row, columns), start=1)
    ]
    image_id = given if isinstance(given, int) else image_id
    return SourceImage(image, image_id, row.get("width"), row.get("height"), objects)


def stored_image(value: Any, folder: DataFolder | None = None) -> Any:
    """Return the undecoded image of a row (path, bytes or both) in the form of a record; paths are in the folder."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, Mapping) and value.get("bytes") is None:
        value = value.get("path")
    if isinstance(value, str):
        return folder.find(value, picture_folders(folder)) if folder is not None else Path(value)
    return value


def id_from_image(image: Any) -> int:
    """Return an id that depends on nothing but the stored picture, for rows without one in no certain order."""
    content = image["bytes"] if isinstance(image, Mapping) else str(image).encode()
    return int.from_bytes(hashlib.sha256(content or b"").digest()[:8]) >> (64 - ID_BITS)


def names_of_categories(categories: Iterable[Hashable], source: str | Path) -> dict[Hashable, str]:
    """Return names for categories without declared names: texts are names; numbers become names, with a warning."""
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
    """Return a value of a file as the key of a category. A value that cannot be a key becomes its text."""
    return value if value is None or isinstance(value, int | str) else repr(value)


def image_column(columns: Collection[str], source: str | Path) -> str:
    """Return the column of the images: a column of the feature Image, or else a column with a usual name of images.

    Args:
        columns: the names of the columns, or the features of a table by their names.
        source: the file or folder that errors name.

    Raises:
        DataError: there is none.
    """
    features = columns if isinstance(columns, Mapping) else {}
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    found = _first(IMAGES, typed) or (typed[0] if len(typed) == 1 else None) or _first(IMAGES, columns)
    if found is None:
        looked_for = ", ".join(repr(name) for name in IMAGES)
        raise locate(f"expected a column of pictures, {looked_for}; found the columns {sorted(columns)}", source)
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
        return [item if isinstance(item, Mapping) else {columns.boxes[0]: item} for item in value]
    if not isinstance(value, Mapping):
        return []
    known = {*columns.boxes, columns.category, "area", *CROWDS, *(IDS if columns.container else ())}
    fields = {name: found for name, found in value.items() if name in known and found is not None}
    if len(columns.boxes) == 1:
        fields = _without_flat_boxes(fields, columns.boxes[0])
    lists = {name: found for name, found in fields.items() if isinstance(found, list | tuple)}
    if not set(columns.boxes) & set(lists):  # a single object, or none
        return [fields] if set(columns.boxes) <= set(fields) else []
    return [dict(zip(lists, values, strict=True)) for values in zip_longest(*lists.values())]


def _without_flat_boxes(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Return fields in which boxes that follow one another as plain numbers are lists of four, one for each object."""
    boxes = fields.get(name)
    if not isinstance(boxes, list | tuple) or not boxes or len(boxes) % 4:
        return fields
    if not all(isinstance(value, int | float) for value in boxes):
        return fields
    single = {key: value if isinstance(value, list | tuple) else [value] for key, value in fields.items()}
    return {**single, name: [list(boxes[start : start + 4]) for start in range(0, len(boxes), 4)]}


def _box(item: Mapping[str, Any], columns: Columns) -> Any:
    if len(columns.boxes) == 1:
        return item.get(columns.boxes[0])
    return [item.get(name) for name in columns.boxes]
