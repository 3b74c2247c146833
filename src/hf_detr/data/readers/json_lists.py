"""Reads formats of one json with an entry for each picture: CreateML, Label Studio (JSON, JSON-MIN) and FiftyOne."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..schema import DataError, SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_ellipse, box_of_points
from .splits_by_name import split_named
from .text import mentions, read_json

Parse = Callable[[Any, Path, Skipped], Iterable[tuple[str, Entry]]]
"""A function that yields the pictures in the content of a file, each with the text that speaks of its split, or ""."""


def _layout(description: str, expected: str, accept: Callable[[Path], bool], parse: Parse) -> Layout:
    def read(folder: DataFolder) -> dict[str, SourceSplit]:
        entries: dict[str, list[Entry]] = defaultdict(list)
        skipped = Skipped()
        for split, paths in files_by_split(folder, ".json", accept).items():
            for path in paths:
                content = read_json(path, expected)
                try:
                    for own, entry in parse(content, path, skipped):
                        entries[split_named(own) or split].append(entry)
                except DataError:
                    raise
                except (TypeError, ValueError, KeyError, IndexError, AttributeError, StopIteration) as error:
                    problem = f"expected {expected}, but a field is missing or of another kind ({error!r})"
                    raise locate(problem, path) from error
        skipped.say(folder.path)
        return splits_from_entries(folder, entries)

    return Layout(description, lambda folder: bool(files_by_split(folder, ".json", accept)), read)


# CreateML


def _createml(content: Any, path: Path, skipped: Skipped) -> Iterable[tuple[str, Entry]]:
    for row in content:
        entry = Entry(str(row["image"] if "image" in row else row["imagefilename"]), path)
        for item in row.get("annotations") or row.get("annotation") or []:
            box = [float(item["coordinates"][name]) for name in ("x", "y", "width", "height")]
            entry.add(box, item["label"], "cxcywh")
        yield "", entry


# Label Studio

RECTANGLE, POLYGON, ELLIPSE = "rectanglelabels", "polygonlabels", "ellipselabels"
NO_SHAPES = ("choices", "textarea", "rating", "taxonomy", "number", "relation")


def _label_studio(content: Any, path: Path, skipped: Skipped) -> Iterable[tuple[str, Entry]]:
    for task in content:
        data = task.get("data", task)
        picture = data.get("image") or next(value for value in data.values() if _looks_like_a_picture(value))
        entry = Entry(str(picture), path)
        for item in _results(task):
            value = item.get("value", item)
            entry.width = entry.width or item.get("original_width")
            entry.height = entry.height or item.get("original_height")
            kind = item.get("type") or next((name for name in (RECTANGLE, POLYGON, ELLIPSE) if name in value), "")
            if kind in NO_SHAPES:
                continue
            box = _percent_box(kind, value, item["original_width"] / 100, item["original_height"] / 100)
            labels = value.get(kind) or value.get("labels") or []
            if box is None or len(labels) != 1:
                skipped.add(kind if box is None else f"{kind} with {len(labels)} labels")
            else:
                entry.add_outline(box, str(labels[0]))
        yield "", entry


def _looks_like_a_picture(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "." in value)


def _results(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the shapes on a picture: of the first annotation that nobody cancelled, or of the columns of JSON-MIN."""
    if "annotations" in task or "completions" in task:
        found = task.get("annotations") or task.get("completions") or []
        valid = [entry for entry in found if isinstance(entry, dict) and not entry.get("was_cancelled")]
        return valid[0]["result"] if valid else []
    columns = [value for value in task.values() if isinstance(value, list)]
    return [item for column in columns for item in column if isinstance(item, dict) and "original_width" in item]


def _percent_box(kind: str, value: Mapping[str, Any], across: float, down: float) -> list[float] | None:
    """Return the box in pixels around a shape that is given in hundredths of the picture's width and height.

    A rectangle is turned about its upper left corner; `across` and `down` are a hundredth of the picture's sides.
    """
    if kind in (POLYGON, "polygon"):
        return box_of_points([(x * across, y * down) for x, y in value["points"]])
    turned = math.radians(value.get("rotation") or 0)
    if kind in (RECTANGLE, "rectangle"):
        left, top = value["x"] * across, value["y"] * down
        sides = [(dx, dy) for dx in (0, value["width"] * across) for dy in (0, value["height"] * down)]
        cos, sin = math.cos(turned), math.sin(turned)
        return box_of_points([(left + dx * cos - dy * sin, top + dx * sin + dy * cos) for dx, dy in sides])
    if kind in (ELLIPSE, "ellipse"):
        radii = value["radiusX"] * across, value["radiusY"] * down
        return box_of_ellipse(value["x"] * across, value["y"] * down, *radii, turned)
    return None


# FiftyOne


def _fiftyone_detections(content: Any, path: Path, skipped: Skipped) -> Iterable[tuple[str, Entry]]:
    classes = content.get("classes")
    for name, items in content["labels"].items():
        entry = Entry(name, path)
        for item in items or []:
            label = item["label"]
            label = classes[label] if classes and isinstance(label, int) else label
            entry.add(item["bounding_box"], str(label), "xywhn")
        yield "", entry


def _fiftyone_samples(content: Any, path: Path, skipped: Skipped) -> Iterable[tuple[str, Entry]]:
    for sample in content["samples"]:
        size = sample.get("metadata") or {}
        entry = Entry(sample["filepath"], path, size.get("width"), size.get("height"))
        field = sample.get("ground_truth") or next((v for v in sample.values() if _is_detections(v)), None) or {}
        for item in field.get("detections") or []:
            entry.add(item["bounding_box"], str(item["label"]), "xywhn")
        tags = [tag for tag in sample.get("tags") or [] if split_named(tag)]
        yield tags[0] if tags else "", entry


def _is_detections(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_cls") == "Detections"


JSON_LIST_LAYOUTS = (
    _layout(
        "CreateML: _annotations.createml.json, with the images beside it",
        "a json of CreateML",
        lambda path: mentions(path, '"coordinates"', '"annotation') and mentions(path, '"image'),
        _createml,
    ),
    _layout(
        "Label Studio: an export as JSON or JSON-MIN, with the images beside it",
        "a json of Label Studio",
        lambda path: mentions(path, '"original_width"') and mentions(path, "labels"),
        _label_studio,
    ),
    _layout(
        "FiftyOne: samples.json and data/ (FiftyOneDataset)",
        "the samples.json of FiftyOne",
        lambda path: mentions(path, '"samples"', '"filepath"'),
        _fiftyone_samples,
    ),
    _layout(
        "FiftyOne: labels.json and data/ (FiftyOneImageDetectionDataset)",
        "a labels.json of FiftyOne",
        lambda path: mentions(path, '"labels"', '"bounding_box"'),
        _fiftyone_detections,
    ),
)
