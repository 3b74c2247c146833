"""Lists the files of a data folder once, and finds pictures by the names in annotations, in one way for all readers.

Annotations name pictures as on the machine where they were written. A name is tried, in this order,

1. as it is written, below each of the folders where the reader expects pictures;
2. with `/` for `\\`;
3. without what only another machine understands: the leading folders of an absolute path, a drive letter, an address
   (`s3://…`, `https://…`, `/data/local-files/?d=…`), quoting (`%20`) and the eight digits that Label Studio puts
   before a name;
4. anywhere below the first of the expected folders, where only one picture has this name;
5. anywhere below the root, where only one picture has this name. Folders of other splits do not count, and neither
   does a picture that another name leads to.

A name without a suffix leads to the picture of this name with any suffix.
"""

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from ..images import is_image
from ..remarks import in_short
from ..schema import locate
from .splits_by_name import split_named

DROPPINGS = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "icon\r"}
"""Names, in small letters, of files and folders that operating systems leave behind and that nobody misses."""
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
LOCAL_FILE = re.compile(r"[?&]d=([^&]+)")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DRIVE = re.compile(r"^[A-Za-z]:")
Place = tuple[Path, str | None]
"""A folder, and the beginning of its files' names in the list of all files; None if it is not below the root."""


@dataclass(frozen=True)
class DataFolder:
    """A folder of data, or one annotation file and the folder around it.

    Attributes:
        path: the folder.
        given: the annotation file that is to be read alone, where the user gave a file in place of a folder.
        not_found: the reason why a picture was not found, by the path that stands in its place.
    """

    path: Path
    given: Path | None = None
    not_found: dict[Path, str] = field(default_factory=dict)
    _claimed: dict[str, str] = field(default_factory=dict)
    _guessed: set[str] = field(default_factory=set)
    _subfolders: dict[str, Path | None] = field(default_factory=dict)

    @cached_property
    def files(self) -> list[str]:
        """All files in the folder and its folders as `a/b.jpg`, sorted, without hidden ones and droppings."""
        return sorted(files_below(self.path))

    @cached_property
    def pictures(self) -> list[str]:
        """The pictures among `files`."""
        return [name for name in self.files if is_image(name)]

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The files by their names, and the pictures by their names without suffix too."""
        found = defaultdict(list)
        for name in self.files:
            found[_folded(posixpath.basename(name))].append(name)
        for name in self.pictures:
            found[_folded(posixpath.splitext(posixpath.basename(name))[0])].append(name)
        return found

    def annotation_files(self, suffix: str, *folders: str) -> list[Path]:
        """Return the files of a suffix directly in some folders ("" is this one), or only the given file, if any."""
        if self.given is not None:
            return [self.given] if self.given.suffix.lower() == suffix else []
        places = dict.fromkeys(self.path / name for name in folders or ("",))
        found = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
        return [path for path in found if path.suffix.lower() == suffix and not is_dropping(path.name)]

    def files_within(self, folder: Path, suffix: str | None = None) -> list[Path]:
        """Return the pictures, or the files of a suffix, in a folder below this one and in its folders."""
        prefix = self.prefix(folder)
        if prefix is None:
            below = sorted(files_below(folder))
            return [folder / name for name in below if (is_image(name) if suffix is None else name.endswith(suffix))]
        names = self.pictures if suffix is None else [name for name in self.files if name.lower().endswith(suffix)]
        return [self.path / name for name in names if name.startswith(prefix)]

    def subfolder(self, *names: str) -> Path | None:
        """Return the folder that one of the names leads to, in small or capital letters: `images/train`, `Train`."""
        for name in names:
            if name not in self._subfolders:
                self._subfolders[name] = _folder_below(self.path, name)
            if self._subfolders[name] is not None:
                return self._subfolders[name]
        return None

    def find(self, written: str, near: Sequence[Path] = (), split: str | None = None) -> Path:
        """Return the path of one picture; see `find_all`."""
        return self.find_all([written], near, split)[0]

    def find_all(self, written: Sequence[str], near: Sequence[Path] = (), split: str | None = None) -> list[Path]:
        """Return the paths of pictures.

        Args:
            written: the names of the pictures as an annotation file has them.
            near: the folders where they are expected, the folder of their split first.
            split: the split to which they belong, where the folder has several.

        Returns:
            a path for each name. Where no picture, or more than one, fits a name, the path does not exist, and
            `not_found` tells why.

        Raises:
            DataError: a picture that was found by an incomplete name belongs to another name.
        """
        places = [(place, self.prefix(place)) for place in dict.fromkeys(near or [self.path])]
        found = {name: self._as_written(name, places) for name in dict.fromkeys(written)}
        for name, path in found.items():
            if path is not None:
                self._claim(name, path)
        guesses = {
            name: self._without_leading_folders(name, places) or self._elsewhere(name, places[0][1], split)
            for name, path in found.items()
            if path is None
        }
        names_of = defaultdict(list)
        for name, guess in guesses.items():
            if isinstance(guess, str):
                names_of[guess].append(name)
        decided = {name: self._decided(name, guess, names_of, places[0][0]) for name, guess in guesses.items()}
        return [decided[name] if (path := found[name]) is None else self.path / path for name in written]

    def _claim(self, name: str, path: str) -> None:
        """Note that a name leads to a picture, so that no other name is taken to mean the same one."""
        owner = self._claimed.setdefault(path, name)
        if owner != name and path in self._guessed:
            both = f"both {owner!r} and {name!r} lead to this picture; which one is meant?"
            raise locate(both, self.path / path)

    def _decided(self, name: str, guess: str | list[str], names_of: dict[str, list[str]], near: Path) -> Path:
        if isinstance(guess, str):
            others = [other for other in names_of[guess] if other != name]
            owner = others[0] if others else self._claimed.setdefault(guess, name)
            if owner == name:
                self._guessed.add(guess)
                return self.path / guess
            reason = f"the image file does not exist, and the only picture of this name, {guess}, belongs to {owner!r}"
        elif guess:
            reason = f"the image file does not exist, and several pictures have its name: {in_short(guess)}"
        else:
            reason = "the image file does not exist"
        stand_in = near / name.replace("\\", "/").lstrip("/")
        self.not_found[stand_in] = reason
        return stand_in

    def _as_written(self, written: str, places: Sequence[Place]) -> str | None:
        """Return a picture that is where its name says: its name in `files`, or its path if it is not below here."""
        if not written.strip():
            return None
        # The folder around a single annotation file may be large, so it is listed only where it has to be.
        is_listed = self.given is None or "files" in self.__dict__
        for name in dict.fromkeys((written, written.replace("\\", "/"))):
            may_be_unlisted = not is_listed or name.startswith("/") or ".." in name or "/." in f"/{name}"
            for place, prefix in places:
                if is_listed and prefix is not None and prefix + name in self._present:
                    return prefix + name
                if (may_be_unlisted or prefix is None) and _is_file(place / name):
                    return self.name_of(place / name)
        return None

    def _without_leading_folders(self, written: str, places: Sequence[Place]) -> str | None:
        for parts in _portable(written):
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                for place, prefix in places:
                    if prefix is None and _is_file(place / name):
                        return str(place / name)
                    if prefix is not None and prefix + name in self._present:
                        return prefix + name
        return None

    def _elsewhere(self, written: str, first: str | None, split: str | None) -> str | list[str]:
        """Look in all folders, by the steps 4 and 5. Several pictures are returned as a list."""
        several: list[str] = []
        for prefix in [prefix for prefix in (first, "") if prefix is not None]:
            for parts in _portable(written):
                found = [name for name in self._by_name.get(_folded(parts[-1]), ()) if name.startswith(prefix)]
                found = [name for name in found if not _is_of_another(split, name)]
                found = _most_alike(found, parts) if len(found) > 1 else found
                if len(found) == 1:
                    return found[0]
                several = several or found
        return several

    def prefix(self, place: Path) -> str | None:
        """Return a folder as the beginning of the names in `files` ("a/b/"), or None if it is not below this one."""
        inner = self._inner(place)
        return None if inner is None else "" if inner == "." else f"{inner}/"

    def _inner(self, path: Path) -> str | None:
        root, text = os.fspath(self.path), os.path.normpath(path)
        root = os.path.normpath(root)
        if text == root:
            return "."
        start = root if root.endswith(os.sep) else root + os.sep
        if root == ".":
            return None if os.path.isabs(text) or text.startswith("..") else text.replace(os.sep, "/")
        return text[len(start) :].replace(os.sep, "/") if text.startswith(start) else None

    def name_of(self, path: Path) -> str:
        """Return the name of a path in `files`, or the path itself where it is not below this folder."""
        return self._inner(path) or str(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that holds a zero
        return False


def files_below(folder: Path) -> Iterator[str]:
    """Yield the files in a folder and its folders as `a/b.jpg`; links are followed, but none in a circle."""
    seen: set[tuple[int, int]] = set()
    waiting = [(os.fspath(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            status = os.stat(place)
            entries = list(os.scandir(place))
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if is_dropping(entry.name):
                continue
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.is_file():
                yield prefix + entry.name


def is_dropping(name: str) -> bool:
    """Return whether a file or folder is hidden, or is what an operating system leaves, so that nobody misses it."""
    return name.startswith((".", "~$")) or name.casefold() in DROPPINGS


def _portable(written: str) -> list[list[str]]:
    """Return the parts of a name without what only another machine understands, for each way to read the name."""
    text = written.strip()
    local = LOCAL_FILE.search(text)
    if local:
        text = local[1]
    elif ADDRESS.match(text):
        text = re.split(r"[?#]", text.partition("://")[2])[0]
    found = []
    for plain in dict.fromkeys((text, unquote(text))):
        plain = DRIVE.sub("", plain.replace("\\", "/"))
        parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
        if parts:
            found += [parts, [*parts[:-1], UPLOAD_PREFIX.sub("", parts[-1])]]
    return [list(parts) for parts in dict.fromkeys(tuple(parts) for parts in found)]


def _most_alike(names: list[str], parts: list[str]) -> list[str]:
    """Return the files, among several of one name, whose folders agree best with the folders that are written."""

    def agreeing(name: str) -> int:
        own, count = name.split("/")[:-1], 0
        for left, right in zip(reversed(own), reversed(parts[:-1]), strict=False):
            if _folded(left) != _folded(right):
                break
            count += 1
        return count

    names = [name for name in names if posixpath.basename(name) == parts[-1]] or names
    best = max(map(agreeing, names), default=0)
    return [name for name in names if agreeing(name) == best]


def _is_of_another(split: str | None, name: str) -> bool:
    if split is None:
        return False
    spoken_of = {split_named(part) for part in name.split("/")[:-1]} - {None}
    return bool(spoken_of) and split not in spoken_of


def _folded(name: str) -> str:
    """Return a name in the form for comparing: file systems differ in capital letters and in composed characters."""
    return unicodedata.normalize("NFC", name).casefold()


def _folder_below(place: Path, name: str) -> Path | None:
    for part in name.split("/"):
        if not (place / part).is_dir():
            alike = [path for path in sorted(place.iterdir()) if path.name.casefold() == part.casefold()]
            part = next((path.name for path in alike if path.is_dir()), "")
        if not part:
            return None
        place = place / part
    return place


def existing(paths: Iterable[Path | None]) -> list[Path]:
    """Return the folders that exist, each once."""
    return [path for path in dict.fromkeys(paths) if path is not None and path.is_dir()]
