"""Reads CVAT's own format: annotations.xml, "CVAT for images 1.1" and "CVAT for video 1.1"."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from ..schema import SourceSplit, locate
from .entries import Entry, Skipped, splits_from_entries
from .folder import DataFolder
from .layouts import Layout, files_by_split
from .shapes import box_of_ellipse, box_of_points, box_of_turned
from .splits_by_name import split_named
from .text import mentions, read_xml

EXPECTED = "an xml of CVAT"
FRAME_NUMBER = re.compile(r"(\d+)$")


def cvat_splits(folder: DataFolder) -> dict[str, SourceSplit]:
    """Read all xml files of CVAT in a folder.

    Boxes, turned ones too, polygons, polylines, ellipses, cuboids and masks become the boxes around them; points and
    skeletons are left out and counted. The subset of an image, if it is named like a split, is its split. A film gives
    the objects of each frame whose picture is there.

    Raises:
        DataError: a file is no xml of CVAT, or a number in it cannot be read.
    """
    entries: dict[str, list[Entry]] = defaultdict(list)
    names: list[str] = []
    skipped = Skipped()
    for split, paths in files_by_split(folder, ".xml", _is_cvat).items():
        for path in paths:
            root = read_xml(path, "annotations", EXPECTED)
            names += [name.text.strip() for name in root.iterfind(".//labels/label/name") if name.text]
            for subset, entry in _entries(root, path, folder, skipped):
                entries[split_named(subset) or split].append(entry)
    skipped.say(folder.path)
    return splits_from_entries(folder, entries, names)


def _is_cvat(path: Path) -> bool:
    return mentions(path, "<annotations") and (mentions(path, "<image ") or mentions(path, "<track "))


def _entries(
    root: ElementTree.Element, path: Path, folder: DataFolder, skipped: Skipped
) -> Iterable[tuple[str, Entry]]:
    for image in root.iterfind("image"):
        subset = image.get("subset", "")
        entry = Entry(image.get("name", ""), path, image.get("width"), image.get("height"))
        entry.near = [place for place in [folder.subfolder(f"images/{subset}") if subset else None] if place]
        for shape in image:
            if shape.tag != "tag":
                _add(entry, shape, shape.get("label"), skipped)
        yield subset, entry
    if root.find("track") is not None:
        yield from (("", entry) for entry in _frames(root, path, folder, skipped))


def _frames(root: ElementTree.Element, path: Path, folder: DataFolder, skipped: Skipped) -> list[Entry]:
    """Return the pictures of a film by their numbers, with the objects of its tracks in each."""
    width, height = (root.findtext(f".//original_size/{side}") for side in ("width", "height"))
    images = folder.subfolder("images")
    pictures = folder.files_within(images) if images else [folder.path / name for name in folder.pictures]
    numbered = {int(found[1]): picture for picture in pictures if (found := FRAME_NUMBER.search(picture.stem))}
    entries = {
        frame: Entry(picture.name, path, width, height, found=picture) for frame, picture in sorted(numbered.items())
    }
    for track in root.iterfind("track"):
        for shape in track:
            frame = int(shape.get("frame", "-1"))
            if shape.get("outside") == "1":
                continue
            if frame not in entries:
                entries[frame] = Entry(f"frame_{frame:06d}.png", path, width, height)
            _add(entries[frame], shape, track.get("label"), skipped)
    return [entries[frame] for frame in sorted(entries)]


def _add(entry: Entry, shape: ElementTree.Element, label: str | None, skipped: Skipped) -> None:
    def numbers(*names: str) -> list[float]:
        return [float(_required(shape, name)) for name in names]

    try:
        turned = float(shape.get("rotation") or 0)
        if shape.tag == "box" and not turned:
            entry.add(numbers("xtl", "ytl", "xbr", "ybr"), label, "xyxy")
            return
        box = _box_around(shape, numbers, turned)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        problem = f"expected the numbers of a {shape.tag}, got {shape.attrib} ({error})"
        raise locate(problem, entry.source, entry.picture, field=shape.tag) from error
    if box is None:
        skipped.add(shape.tag)
    else:
        entry.add_outline(box, label)


def _required(shape: ElementTree.Element, name: str) -> str:
    value = shape.get(name)
    if value is None:
        raise ValueError(f"{name} is missing")
    return value


def _box_around(shape: ElementTree.Element, numbers: Callable[..., list[float]], turned: float) -> list[float] | None:
    match shape.tag:
        case "box":
            left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
            return box_of_turned([left, top, right - left, bottom - top], turned)
        case "polygon" | "polyline":
            pairs = _required(shape, "points").split(";")
            return box_of_points([[float(value) for value in pair.split(",")] for pair in pairs])
        case "mask":
            return numbers("left", "top", "width", "height")
        case "ellipse":
            x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
            return box_of_ellipse(x, y, radius_x, radius_y, math.radians(turned))
        case "cuboid":
            sides = [f"{side}{end}" for side in ("tl", "tr", "bl", "br") for end in ("1", "2")]
            return box_of_points([numbers(f"x{side}", f"y{side}") for side in sides])
    return None


CVAT_LAYOUT = Layout(
    "CVAT's own xml (CVAT for images or video 1.1): annotations.xml and images/",
    lambda folder: bool(files_by_split(folder, ".xml", _is_cvat)),
    cvat_splits,
)
