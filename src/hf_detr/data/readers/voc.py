"""Reads Pascal VOC: one xml file of objects for each image.

Corners are taken as the files have them: (xmin, ymin, xmax, ymax) are the edges of the box, so that it is
xmax - xmin pixels wide. That is what annotation tools and exporters write today. The data sets of the VOC challenges
themselves count pixels from 1 and include the last one; their files say so under `source/database`, "The VOC2007
Database" or the like, and only theirs are shifted by xmin - 1 and ymin - 1.

A `difficult` object becomes a crowd region: as in the challenge, finding it counts neither for nor against a model,
and no model is trained on it. `truncated` and `occluded` objects are objects like any other.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..schema import SourceSplit
from .entries import Entry, splits_from_entries
from .folder import DataFolder, existing
from .layouts import Layout, files_by_split, picture_folders
from .splits_by_name import SPLIT_NAMES
from .text import mentions, number, read_lines, read_xml

CHALLENGE = re.compile(r"The VOC\d{4} Database")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
IMAGE_SETS = "ImageSets/Main"


@dataclass(frozen=True)
class VocFile:
    """An xml file, and its path without suffix below the folder of the xml files. Its image has the same path."""

    path: Path
    name: str


def voc_splits(folder: DataFolder, files: Mapping[str, Sequence[VocFile]]) -> dict[str, SourceSplit]:
    """Read splits in Pascal VOC format; the classes are the names found in any of them, in alphabetical order.

    The image of an xml file has the same name, or else the name that the file holds. Images are numbered from 1 within
    a split, objects from 1 within an image.

    Raises:
        DataError: a file is missing or is no xml.
    """
    pictures = defaultdict(list)
    for name in folder.pictures:
        pictures[os.path.splitext(name)[0]].append(name)
    entries = {split: [_entry(file, folder, pictures) for file in found] for split, found in files.items()}
    return splits_from_entries(folder, entries)


def _entry(file: VocFile, folder: DataFolder, pictures: Mapping[str, Sequence[str]]) -> Entry:
    root = read_xml(file.path, "annotation", "a Pascal VOC xml")
    named = (root.findtext("filename") or "").strip()
    near = existing([folder.subfolder("JPEGImages"), file.path.parent, *picture_folders(folder, None, file.path)])
    found = _picture(folder, pictures, near, file.name, named)
    width, height = (number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    entry = Entry(named or f"{file.path.stem}.jpg", file.path, width, height, found=found, near=near)
    shift = 1 if CHALLENGE.match((root.findtext("source/database") or "").strip()) else 0
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip() or None
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        entry.add(_box(item, shift), name, "xyxy", iscrowd=int(difficult))
    return entry


def _picture(
    folder: DataFolder, pictures: Mapping[str, Sequence[str]], near: Sequence[Path], stem: str, named: str
) -> Path | None:
    """Return the picture of an xml file's own name, or else of the name that it holds, with whatever suffix."""
    named = PurePosixPath(PureWindowsPath(named).as_posix()).name
    own = PurePosixPath(stem)
    for name in dict.fromkeys((stem, own.name, os.path.splitext(named)[0])):
        for place in near:
            prefix = folder.prefix(place)
            found = pictures.get(f"{prefix}{name}", ()) if prefix is not None and name else ()
            if found:
                exact = [path for path in found if PurePosixPath(path).name == named]
                return folder.path / (exact or found)[0]
    return None


def _box(item: ElementTree.Element, shift: int) -> Any:
    corners = [number(item.findtext(f"bndbox/{name}")) for name in CORNERS]
    if not all(isinstance(value, float) for value in corners):
        return corners
    left, top, right, bottom = corners
    return [left - shift, top - shift, right, bottom]


# Where the files are


def _listed_splits(folder: DataFolder) -> dict[str, list[VocFile]]:
    """Return the splits of the challenge's layout: Annotations/, JPEGImages/ and lists of names in ImageSets/Main/."""
    annotations, lists = folder.subfolder("Annotations"), folder.subfolder(IMAGE_SETS)
    if folder.given is not None or annotations is None or lists is None:
        return {}
    by_name = {path.stem.casefold(): path for path in sorted(lists.glob("*.txt"))}
    found = {
        split: by_name[name] for split, names in SPLIT_NAMES.items() for name in reversed(names) if name in by_name
    }
    if "train" not in found and "trainval" in by_name:
        found["train"] = by_name["trainval"]
    if "train" not in found:
        return {}
    return {split: [_listed(line, annotations) for line in read_lines(path)] for split, path in found.items()}


def _listed(line: str, annotations: Path) -> VocFile:
    """Return the xml file that a line of a list names. A name may have spaces in it and a flag behind it."""
    line = line.strip('"')
    shortened = re.sub(r"\s+-?[01]$", "", line).strip('"')
    for name in dict.fromkeys((line, shortened, shortened.split()[0])):
        if (annotations / f"{name}.xml").is_file():
            return VocFile(annotations / f"{name}.xml", name)
    return VocFile(annotations / f"{shortened}.xml", shortened)


def _split_by_folders(folder: DataFolder) -> dict[str, list[VocFile]]:
    """Return the xml files in any folder that holds some of Pascal VOC, by the splits in the names of folders."""
    places: dict[Path, bool] = {}

    def is_among_others(path: Path) -> bool:
        # A broken file among others is not passed over, because its objects would be missed without a word.
        if path.parent not in places:
            places[path.parent] = any(map(_looks_like_voc, sorted(path.parent.glob("*.xml"))))
        return places[path.parent]

    return {
        split: [VocFile(path, _below_annotations(folder, path)) for path in paths]
        for split, paths in files_by_split(folder, ".xml", is_among_others, by_file_name=False).items()
    }


def _looks_like_voc(path: Path) -> bool:
    return mentions(path, "<annotation") and not mentions(path, "<annotations")


def _below_annotations(folder: DataFolder, path: Path) -> str:
    parts = list(path.relative_to(folder.path).with_suffix("").parts)
    places = [index for index, part in enumerate(parts[:-1]) if part.casefold() in ("annotations", "xml", "labels")]
    return "/".join(parts[places[-1] + 1 :] if places else parts[-1:])


def _layout(description: str, find: Callable[[DataFolder], dict[str, list[VocFile]]]) -> Layout:
    return Layout(description, lambda folder: "train" in find(folder), lambda folder: voc_splits(folder, find(folder)))


VOC_LAYOUTS = (
    _layout(
        "Pascal VOC: Annotations/*.xml, JPEGImages/ and, for the splits, ImageSets/Main/{train,val,test}.txt",
        _listed_splits,
    ),
    _layout(
        "Pascal VOC: *.xml beside the images or in Annotations/, in folders train/, valid/ and test/ or without",
        _split_by_folders,
    ),
)
