"""Reads Supervisely's format: meta.json, and for each data set a folder with img/ and ann/, a json for each image."""

import base64
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image

from ..schema import SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_points
from .text import read_json

EXPECTED = "a json of Supervisely"
META = "meta.json"
CORNERED = ("rectangle", "polygon", "line", "polyline")
LARGEST_MASK = 1 << 28
"""The most bytes to which a mask is unpacked, which are more than any picture has."""


def supervisely_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read a project of Supervisely. Data sets that are named like splits become these splits.

    Rectangles, polygons, lines and bitmaps become the boxes around them; other shapes are left out and counted.

    Raises:
        DataError: a file is no json of Supervisely, or an object cannot be read.
    """
    skipped = Skipped()
    entries = {
        split: [_entry(path, skipped) for path in paths]
        for split, paths in files_by_split(folder, ".json", _is_annotation, by_file_name=False).items()
    }
    skipped.say(folder.path)
    return splits_from_entries(folder, entries, _declared(folder))


def _is_annotation(path: Path) -> bool:
    return path.parent.name == "ann"


def _declared(folder: DataFolder) -> list[str]:
    path = folder.path / META
    if not path.is_file():
        return []
    content = read_json(path, "the meta.json of Supervisely")
    try:
        return [str(entry["title"]) for entry in content["classes"]]
    except (TypeError, KeyError) as error:
        raise locate("expected a list 'classes' of titles", path, field="classes") from error


def _entry(path: Path, skipped: Skipped) -> Entry:
    content = read_json(path, EXPECTED)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise locate(f"expected {EXPECTED} with a list 'objects'", path)
    size = content.get("size") or {}
    entry = Entry(path.stem, path, size.get("width"), size.get("height"))  # a.jpg.json belongs to a.jpg
    entry.near = [path.parent.parent / "img"]
    for number, item in enumerate(objects, start=1):
        try:
            box = _box(item)
            name = item["classTitle"]
        except (TypeError, ValueError, KeyError, IndexError, zlib.error, OSError) as error:
            raise locate(f"expected an object, got {str(item)[:200]}", path, path.stem, number, "objects") from error
        if box is None:
            skipped.add(str(item.get("geometryType")))
        else:
            entry.add_outline(box, name)
    return entry


def _box(item: Mapping[str, Any]) -> list[float] | None:
    kind = item.get("geometryType")
    if kind == "bitmap":
        left, top = item["bitmap"]["origin"]
        packed = zlib.decompressobj().decompress(base64.b64decode(item["bitmap"]["data"]), LARGEST_MASK)
        with PIL.Image.open(io.BytesIO(packed)) as mask:
            return [float(left), float(top), float(mask.width), float(mask.height)]
    return box_of_points(item["points"]["exterior"]) if kind in CORNERED else None


SUPERVISELY_LAYOUT = Layout(
    "Supervisely: meta.json, and for each data set a folder with img/ and ann/*.json",
    lambda folder: (
        folder.given is None and any(name.endswith(".json") and _is_annotation(Path(name)) for name in folder.files)
    ),
    supervisely_splits,
)
