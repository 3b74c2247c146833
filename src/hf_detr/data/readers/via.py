"""Reads the format of the VGG Image Annotator (VIA): one json of a project or of its annotations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..remarks import ONE_CLASS, say_one_class
from ..schema import SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_ellipse, box_of_points
from .text import mentions, read_json

EXPECTED = "a json of VIA"
CLASS_NAMES = ("class", "label", "category", "name", "type", "object", "object_name", "class_name")


def via_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read the json files of VIA in a folder, its splits by the names of files and folders.

    The class of a region is its attribute. Of several attributes the one called class, label, category, name or type
    is taken. Regions without attributes are all of one class, "object". Rectangles, polygons, polylines, circles and
    ellipses become the boxes around them; points are left out and counted.

    Raises:
        DataError: a file is no json of VIA, or a region cannot be read.
    """
    skipped = Skipped()
    entries = {
        split: [entry for path in paths for entry in _entries(path, skipped)]
        for split, paths in files_by_split(folder, ".json", _is_via).items()
    }
    skipped.say(folder.path)
    return splits_from_entries(folder, entries)


def _is_via(path: Path) -> bool:
    return mentions(path, '"regions"', '"filename"', '"shape_attributes"')


def _entries(path: Path, skipped: Skipped) -> Iterable[Entry]:
    content = read_json(path, EXPECTED)
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise locate(f"expected {EXPECTED}, an object, got a {type(content).__name__}", path)
    rows = [row for row in content.values() if isinstance(row, dict) and "filename" in row]
    attribute = _class_attribute(rows, path)
    if attribute is None and any(_regions(row) for row in rows):
        say_one_class(path)
    for row in rows:
        entry = Entry(str(row["filename"]), path)
        for number, region in enumerate(_regions(row), start=1):
            try:
                box = _box(region["shape_attributes"])
                name = _class_of(region.get("region_attributes") or {}, attribute)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise locate(f"expected a region, got {region!r}", path, entry.picture, number, "regions") from error
            if box is None:
                skipped.add(str(region["shape_attributes"].get("name")))
            elif region["shape_attributes"]["name"] == "rect":
                entry.add(box, name)
            else:
                entry.add_outline(box, name)
        yield entry


def _regions(row: Mapping[str, Any]) -> list[Any]:
    regions = row.get("regions") or []
    return list(regions.values()) if isinstance(regions, Mapping) else regions  # VIA 1 numbers them


def _class_attribute(rows: list[dict[str, Any]], path: Path) -> str | None:
    found = {
        name: None
        for row in rows
        for region in _regions(row)
        if isinstance(region, Mapping)
        for name in region.get("region_attributes") or {}
    }
    if len(found) <= 1:
        return next(iter(found), None)
    by_name = {name.casefold().strip(): name for name in found}
    known = next((by_name[name] for name in CLASS_NAMES if name in by_name), None)
    if known is None:
        problem = (
            f"expected one attribute that names the class, or one of {', '.join(CLASS_NAMES)}; found {list(found)}"
        )
        raise locate(problem, path, field="region_attributes")
    return known


def _class_of(attributes: Mapping[str, Any], attribute: str | None) -> str | None:
    if attribute is None:
        return ONE_CLASS
    value = attributes.get(attribute)
    if isinstance(value, Mapping):  # boxes that were ticked
        ticked = [name for name, chosen in value.items() if chosen]
        value = ticked[0] if len(ticked) == 1 else None
    return str(value).strip() or None if value is not None else None


def _box(shape: Mapping[str, Any]) -> list[float] | None:
    match shape["name"]:
        case "rect":
            return [float(shape[name]) for name in ("x", "y", "width", "height")]
        case "polygon" | "polyline":
            return box_of_points(list(zip(shape["all_points_x"], shape["all_points_y"], strict=True)))
        case "circle":
            return box_of_ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
        case "ellipse":
            return box_of_ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], float(shape.get("theta") or 0))
    return None


VIA_LAYOUT = Layout(
    "VGG Image Annotator: a json of a project or of annotations, with the images beside it or in images/",
    lambda folder: bool(files_by_split(folder, ".json", _is_via)),
    via_splits,
)
