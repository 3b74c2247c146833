"""Reads datumaro's own format: annotations/<subset>.json and images/<subset>/."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..schema import SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_flat_points, box_of_segmentation
from .text import mentions, read_json

EXPECTED = "a json of datumaro"
NO_SHAPES = ("label", "caption")


def datumaro_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read the json files of datumaro in a folder, one for each split.

    Boxes, polygons, polylines and masks become the boxes around them; other shapes are left out and counted.

    Raises:
        DataError: a file is no json of datumaro, or an annotation cannot be read.
    """
    entries: dict[str, list[Entry]] = defaultdict(list)
    names: list[str] = []
    skipped = Skipped()
    for split, paths in files_by_split(folder, ".json", _is_datumaro).items():
        for path in paths:
            labels, found = _file(path, folder, skipped)
            names += labels
            entries[split] += found
    skipped.say(folder.path)
    return splits_from_entries(folder, entries, names)


def _is_datumaro(path: Path) -> bool:
    return mentions(path, '"items"', '"categories"', '"annotations"')


def _file(path: Path, folder: DataFolder, skipped: Skipped) -> tuple[list[str], list[Entry]]:
    content = read_json(path, EXPECTED)
    try:
        labels = [str(label["name"]) for label in content["categories"]["label"]["labels"]]
        near = folder.subfolder(f"images/{path.stem}")
        return labels, [_entry(item, labels, path, near, skipped) for item in content["items"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise locate(f"expected {EXPECTED}, but a field is missing or of another kind ({error})", path) from error


def _entry(item: Mapping[str, Any], labels: Sequence[str], path: Path, near: Path | None, skipped: Skipped) -> Entry:
    image = item.get("image") or {}
    height, width = image.get("size") or (None, None)
    entry = Entry(image.get("path") or str(item["id"]), path, width, height)
    entry.near = [near] if near is not None else []
    for number, annotation in enumerate(item.get("annotations") or [], start=1):
        if annotation["type"] in NO_SHAPES:
            continue
        try:
            box = _box(annotation)
            label = annotation.get("label_id")
            name = None if label is None else labels[label]
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise locate(f"expected a shape, got {annotation!r}", path, item["id"], number, "annotations") from error
        if box is None:
            skipped.add(str(annotation["type"]))
        elif annotation["type"] == "bbox":
            entry.add(box, name)
        else:
            entry.add_outline(box, name)
    return entry


def _box(annotation: Mapping[str, Any]) -> list[float] | None:
    match annotation["type"]:
        case "bbox":
            return [float(value) for value in annotation["bbox"]]
        case "polygon" | "polyline":
            return box_of_flat_points(annotation["points"])
        case "mask":
            return box_of_segmentation(annotation["rle"])
    return None


DATUMARO_LAYOUT = Layout(
    "datumaro: annotations/<subset>.json with 'items', and images/<subset>/",
    lambda folder: bool(files_by_split(folder, ".json", _is_datumaro)),
    datumaro_splits,
)
