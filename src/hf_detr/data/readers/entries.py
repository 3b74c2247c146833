"""Turns the entries that most readers collect, each a picture's name as written and its objects, into splits."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..box_formats import BoxFormat
from ..remarks import counted
from ..schema import SourceImage, SourceObject, SourceSplit
from .folder import DataFolder
from .layouts import picture_folders
from .text import integer


@dataclass
class Entry:
    """One picture of an annotation file.

    Attributes:
        picture: the name of the picture as written.
        source: the file that names it.
        width, height: the size in pixels, None where the file does not tell.
        objects: the objects that it shows; `add` and `add_outline` append to them.
        found: the path of the picture, for readers that know it.
        content: the bytes of the picture, where the annotation file holds them.
        near: the folders in which the picture is looked for before all others.
    """

    picture: str
    source: Path
    width: Any = None
    height: Any = None
    objects: list[SourceObject] = field(default_factory=list)
    found: Path | None = None
    content: bytes | None = None
    near: Sequence[Path] = ()

    def add(self, box: Any, name: Any, box_format: BoxFormat = "xywh", iscrowd: int = 0) -> None:
        """Append an object of which the file has the box: its four numbers and their format."""
        self.objects.append(SourceObject(len(self.objects) + 1, box, name, None, iscrowd, box_format))

    def add_outline(self, box: Any, name: Any, box_format: BoxFormat = "xywh") -> None:
        """Append an object of which the file has an outline, with the box around it."""
        self.objects.append(SourceObject(len(self.objects) + 1, box, name, box_format=box_format, from_outline=True))


class Skipped:
    """Counts the shapes around which there is no box, for one warning about all of them."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """Count a shape of a kind."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def say(self, source: Path | str) -> None:
        """Warn of the shapes that were counted, if there are any."""
        if self.kinds:
            kinds = ", ".join(f"{count} of the kind {kind!r}" for kind, count in sorted(self.kinds.items()))
            total = counted(sum(self.kinds.values()), "shape")
            warnings.warn(f"{source}: left out {total} around which there is no box: {kinds}", stacklevel=3)


def splits_from_entries(
    folder: DataFolder, entries: Mapping[str, Sequence[Entry]], names: Iterable[str] | None = None
) -> dict[str, SourceSplit]:
    """Find the pictures of entries and return them as splits.

    Args:
        folder: the data set.
        entries: the pictures of each split.
        names: the classes that the files declare, in their order; further ones follow in alphabetical order.

    Returns:
        splits whose images are numbered from 1. The objects of an image are numbered from 1 as well.
    """
    several = len(entries) > 1
    shown = {item.category for found in entries.values() for entry in found for item in entry.objects}
    declared = list(dict.fromkeys(names or ()))
    further = sorted((name for name in shown - set(declared) if name not in (None, "")), key=str)
    classes = {name: str(name) for name in [*declared, *further]}
    splits = {}
    for split, found in entries.items():
        records = _records(folder, found, split if several else None)
        splits[split] = SourceSplit(records, classes, found[0].source if found else folder.path)
    return splits


def _records(folder: DataFolder, entries: Sequence[Entry], split: str | None) -> list[SourceImage]:
    images = _pictures(folder, entries, split)
    return [
        SourceImage(
            image,
            number,
            integer(entry.width) or None,  # some tools write 0 where they do not know
            integer(entry.height) or None,
            entry.objects,
            annotation_file=entry.source,
        )
        for number, (entry, image) in enumerate(zip(entries, images, strict=True), start=1)
    ]


def _pictures(folder: DataFolder, entries: Sequence[Entry], split: str | None) -> list[Any]:
    """Return the pictures of entries; those expected in the same folders are looked for together."""
    images: list[Any] = [entry.found for entry in entries]
    together: dict[tuple[Path, ...], list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.found is None:
            together.setdefault((*entry.near, entry.source.parent), []).append(index)
    for near, indices in together.items():
        places = list(dict.fromkeys([*near[:-1], *picture_folders(folder, split, near[-1])]))
        found = folder.find_all([entries[index].picture for index in indices], places, split)
        for index, path in zip(indices, found, strict=True):
            images[index] = path
    for index, entry in enumerate(entries):
        if entry.content is not None and images[index] in folder.not_found:
            images[index] = {"bytes": entry.content, "path": None}
    return images
