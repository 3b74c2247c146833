"""Defines what a layout is, and divides the annotation files of a folder among its splits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..schema import SourceSplit
from .folder import DataFolder
from .splits_by_name import SPLIT_NAMES, split_named


@dataclass(frozen=True)
class Layout:
    """A way to arrange a data set in a folder. A reader is one file that defines one or a few, and a row in `LAYOUTS`.

    Attributes:
        description: the words by which an error message tells what to look for.
        detect: tells quickly whether a folder is arranged like this.
        read: returns the splits of such a folder, by the names of `SPLIT_NAMES`. It raises a `DataError` for what is
            unreadable.
    """

    description: str
    detect: Callable[[DataFolder], bool]
    read: Callable[[DataFolder], dict[str, SourceSplit]]


def split_folders(folder: DataFolder) -> dict[str, Path]:
    """Return the folders directly within one that are named like a split; of several names for one, the first."""
    if folder.given is not None:
        return {}
    found = {split: folder.subfolder(*names) for split, names in SPLIT_NAMES.items()}
    return {split: path for split, path in found.items() if path is not None}


def files_by_split(
    folder: DataFolder, suffix: str, accept: Callable[[Path], bool], by_file_name: bool = True
) -> dict[str, list[Path]]:
    """Return the annotation files of a suffix by the split that their names, or else their folders, speak of.

    Files that speak of no split are for training, and so is a file that the user gave.

    Args:
        folder: the folder in which they are, in any depth.
        suffix: the suffix with its dot, in small letters.
        accept: tells whether a file is of the kind that is looked for.
        by_file_name: whether the name of a file may speak of a split, or only the names of the folders that it is in.
    """
    if folder.given is not None:
        return {"train": [folder.given]} if folder.given.suffix.lower() == suffix and accept(folder.given) else {}
    found: dict[str, list[Path]] = {}
    for name in folder.files:
        if name.lower().endswith(suffix) and accept(folder.path / name):
            parts = Path(name).with_suffix("").parts if by_file_name else Path(name).parent.parts
            split = next((split for part in reversed(parts) if (split := split_named(part))), "train")
            found.setdefault(split, []).append(folder.path / name)
    return found


def picture_folders(folder: DataFolder, split: str | None = None, *around: Path) -> list[Path]:
    """Return the folders where the pictures of a split are expected: its own, around a file, images/, the root.

    Args:
        folder: the whole data set.
        split: the name of the split, where there are several.
        around: annotation files, or other folders, beside which pictures may be.
    """
    names = SPLIT_NAMES.get(split or "", ())
    own = [place for name in names for place in (folder.subfolder(f"images/{name}"), folder.subfolder(name))]
    within = [place / "images" for place in own if place is not None and (place / "images").is_dir()]
    beside = []
    for path in around:
        place = path if path.is_dir() else path.parent
        beside += [place, place / "images"]
        if place != folder.path:
            beside += [place.parent / "images", place.parent / "JPEGImages", place.parent]
    beside = [place for place in dict.fromkeys(beside) if place.is_dir()]
    images = folder.subfolder("images", "JPEGImages", "img", "data")
    places = [*own, *within, *beside, images, folder.path]
    return list(dict.fromkeys(place for place in places if place is not None))
