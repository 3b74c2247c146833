"""What the readers of folders share: what a layout is, how splits are named, where images are."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..images import is_image
from ..schema import SourceSplit

SPLIT_NAMES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}
"""How data sets call their splits."""


@dataclass(frozen=True)
class Layout:
    """A way to arrange a data set in a folder.

    Attributes:
        description: what a reader of an error message should look for.
        detect: whether a folder is arranged like this; cheap.
        read: the splits of such a folder, by the names of `SPLIT_NAMES`; raises a `DataError` for what is unreadable.
    """

    description: str
    detect: Callable[[Path], bool]
    read: Callable[[Path], dict[str, SourceSplit]]


def split_named(name: str) -> str | None:
    """Return the split that a file or folder name speaks of ("instances_val2017" is of `validation`), if it is one."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders directly within one that are named like a split; of several names for one, the first."""
    found = {}
    for split, names in SPLIT_NAMES.items():
        existing = [folder / name for name in names if (folder / name).is_dir()]
        if existing:
            found[split] = existing[0]
    return found


def images_within(folder: Path) -> list[Path]:
    """Return the image files of a folder and all folders in it, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if is_image(path) and path.is_file())


def images_by_stem(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the image files directly in the folders, by their names without suffix; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if is_image(path):
                    found.setdefault(path.stem, path)
    return found
