"""Reads labelme's format: a json of shapes for each picture, beside the picture or in a folder of its own."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..schema import SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_ellipse, box_of_points
from .text import mentions, read_json

EXPECTED = "a json of labelme"
CORNERED = ("rectangle", "polygon", "linestrip", "line", "mask", "rotation", "quad")


def labelme_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read the json files of labelme in a folder, its splits by the names of the folders.

    Rectangles, polygons, lines, masks and circles become the boxes around them; single points are left out and
    counted. A picture that the json holds itself is used where the file is not there.

    Raises:
        DataError: a file is no json of labelme, or a shape cannot be read.
    """
    skipped = Skipped()
    pictures = {name.rpartition(".")[0] for name in folder.pictures}

    def is_for_a_picture(path: Path) -> bool:
        # A broken file beside its picture is not passed over, because its objects would be missed without a word.
        return _is_labelme(path) or folder.name_of(path.with_suffix("")) in pictures

    entries = {
        split: [_entry(path, skipped) for path in paths]
        for split, paths in files_by_split(folder, ".json", is_for_a_picture, by_file_name=False).items()
    }
    skipped.say(folder.path)
    return splits_from_entries(folder, entries)


def _is_labelme(path: Path) -> bool:
    return mentions(path, '"shapes"', '"imagePath"')


def _entry(path: Path, skipped: Skipped) -> Entry:
    content = read_json(path, EXPECTED)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    name = content.get("imagePath") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not isinstance(name, str):
        raise locate(f"expected {EXPECTED} with 'shapes' and 'imagePath'", path)
    entry = Entry(name, path, content.get("imageWidth"), content.get("imageHeight"))
    entry.near = [path.parent]
    entry.content = _embedded(content.get("imageData"), path)
    for number, shape in enumerate(shapes, start=1):
        try:
            box = _box(shape)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise locate(f"expected a shape of labelme, got {shape!r}", path, name, number, "shapes") from error
        if box is None:
            skipped.add(str(shape.get("shape_type")))
        else:
            entry.add_outline(box, shape.get("label"))
    return entry


def _box(shape: Mapping[str, Any]) -> list[float] | None:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = ((edge_x - x) ** 2 + (edge_y - y) ** 2) ** 0.5
        return box_of_ellipse(x, y, radius, radius)
    return box_of_points(points) if kind in CORNERED else None


def _embedded(data: Any, path: Path) -> bytes | None:
    try:
        return base64.b64decode(data) if data else None
    except (binascii.Error, TypeError, ValueError) as error:
        raise locate(f"expected a picture in base64 ({error})", path, field="imageData") from error


def _is_labelme_folder(folder: DataFolder) -> bool:
    files = [folder.given] if folder.given else (folder.path / name for name in folder.files)
    return any(path.suffix.lower() == ".json" and _is_labelme(path) for path in files)


LABELME_LAYOUT = Layout("labelme: a json beside each picture", _is_labelme_folder, labelme_splits)
