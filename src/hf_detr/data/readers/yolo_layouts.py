"""Finds YOLO's images, labels and class names in the ways in which folders arrange them."""

from pathlib import Path
from typing import Any

from ..schema import SourceSplit, locate
from .folder import DataFolder
from .layouts import Layout, split_folders
from .splits_by_name import SPLIT_NAMES, split_named
from .text import integer, mentions, read_lines, read_yaml
from .yolo import YoloFiles, say_missing_test_images, yolo_splits

YAML_SUFFIXES = (".yaml", ".yml")
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
NOTHING = ("", "null", "Null", "NULL", "~")
"""The texts that stand for no value in a yaml, whose values are all read as text."""
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt", "data/obj.names", "classes.names")
SPLIT_CLASS_FILES = ("_darknet.labels", "obj.names", "classes.txt")
"""Files of class names that may be in the folder of a split."""


# With a data.yaml


def _yaml_file(folder: DataFolder) -> Path | None:
    found = [path for suffix in YAML_SUFFIXES for path in folder.annotation_files(suffix)]
    named = [path for name in YAML_NAMES for path in found if path.name.lower() == name]
    others = [path for path in found if mentions(path, "names:", "train:")]
    return next(iter([*named, *others, *([folder.given] if folder.given in found else [])]), None)


def _from_yaml(folder: DataFolder) -> dict[str, SourceSplit]:
    source = _yaml_file(folder)
    if source is None:
        raise locate("expected a data.yaml, found none", folder.path)
    content = read_yaml(source)
    if not isinstance(content, dict):
        raise locate(f"expected 'train', 'val' and 'names', got a {type(content).__name__}", source)
    names = _names(content, source)
    images: dict[str, list[Path]] = {}
    for split, keys in YAML_KEYS.items():
        values = [content[key] for key in keys if content.get(key) and content[key] not in NOTHING]
        if values:
            found = _yaml_images(folder, split, values[0], content, source)
            images |= {split: found} if found else {}
    if not images.get("train"):
        raise locate(f"no training images found; it has train: {content.get('train')!r}", source, field="train")
    return yolo_splits(folder, YoloFiles(images, names, source, "kpt_shape" in content))


def _names(content: dict, source: Path) -> dict[int, str]:
    names = content.get("names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise locate(f"expected the names of the classes, a list or a mapping, got {names!r}", source, field="names")
    count = integer(content.get("nc", len(names)))
    if count != len(names):
        raise locate(f"it says {count}, but 'names' has {len(names)}: {list(names.values())}", source, field="nc")
    try:
        return {int(index): name for index, name in sorted(names.items(), key=lambda item: int(item[0]))}
    except ValueError as error:
        raise locate(
            f"expected the indices of the classes as keys, got {list(names)}", source, field="names"
        ) from error


def _yaml_images(folder: DataFolder, split: str, value: Any, content: dict, source: Path) -> list[Path]:
    """Return the images of a folder, of a text file of paths, or of a list of folders and text files.

    Validation images that are named but missing are an error, because splitting some off the training images would
    hide it.
    """
    images: list[Path] = []
    for place in value if isinstance(value, list) else [value]:
        candidates = _candidates(folder, str(place), str(content.get("path") or ""), split)
        found = next((path for path in candidates if path.exists()), None)
        problem: str | None
        if found is None:
            problem = f"there is no {str(place)!r}; looked for {', '.join(str(path) for path in candidates)}"
        elif found.is_dir():
            images += folder.files_within(found)
            problem = None if images else f"there is no picture in {found}"
        else:
            images += _listed_images(folder, found, split)
            problem = None if images else f"{found} lists no picture"
        if problem and split == "test":
            say_missing_test_images(source, problem)
        elif problem:
            remedy = ". Without this line, every fifth training image is used" if split == "validation" else ""
            raise locate(problem + remedy, source, field="val" if split == "validation" else split)
    return images


def _candidates(folder: DataFolder, place: str, path: str, split: str) -> list[Path]:
    """Return the paths that a data.yaml may mean: many start at the folder above, or at one of another machine."""
    plain = place.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
    # The part that speaks of the split stays: without it, test/images would lead to the images of all splits.
    telling = [index for index, part in enumerate(parts) if split_named(part) == split]
    last = telling[-1] if telling else len(parts) - 1
    shortened = [parts[start:] for start in range(last + 1)]
    renamed = [
        [name if split_named(part) == split else part for part in found]
        for name in SPLIT_NAMES[split]  # valid/ may stand for val/ and the other way round
        for found in shortened
    ]
    root = folder.path
    places = [root / path.replace("\\", "/") / plain, root / plain]
    return list(dict.fromkeys([*places, *(root / "/".join(found) for found in (*shortened, *renamed))]))


def _listed_images(folder: DataFolder, source: Path, split: str) -> list[Path]:
    """Return the images that a text file lists. An image that is not found stays, so that the check names it."""
    near = [source.parent, folder.path, source.parent.parent]
    return folder.find_all([line.strip("\"'") for line in read_lines(source)], near, split)


# Without a data.yaml


def _class_file(folder: DataFolder) -> Path | None:
    if folder.given is not None:
        return folder.given if folder.given.name in ("classes.txt", "obj.names") else None
    inner = [f"{place.name}/{name}" for name in SPLIT_CLASS_FILES for place in split_folders(folder).values()]
    names = (*CLASS_FILES, *inner)
    return next((folder.path / name for name in names if (folder.path / name).is_file()), None)


def _split_images(folder: DataFolder) -> dict[str, list[Path]]:
    found = {}
    for split, names in SPLIT_NAMES.items():
        place = _place_of_split(folder, names)
        if place is not None:
            found[split] = folder.files_within(place) if place.is_dir() else _listed_images(folder, place, split)
    if "train" not in found:
        alone = folder.subfolder("images") or folder.path
        beside = [folder.path / name for name in folder.pictures if "/" not in name]
        images = folder.files_within(alone) if alone != folder.path or not beside else beside
        found |= {"train": images} if images else {}
    return found


def _place_of_split(folder: DataFolder, names: tuple[str, ...]) -> Path | None:
    """Return the folder of a split's images, or the text file that lists them."""
    files = folder.annotation_files(".txt", "", "data") if folder.given is None else []
    lists = {path.stem.casefold(): path for path in files}
    nested = folder.subfolder(*(place for name in names for place in (f"images/{name}", f"{name}/images")))
    listed = next((lists[name] for name in names if name in lists), None)
    plain = folder.subfolder(*(place for name in names for place in (f"obj_{name}_data", name)))
    return nested or listed or plain


def _from_class_file(folder: DataFolder) -> dict[str, SourceSplit]:
    source = _class_file(folder)
    if source is None:
        raise locate("expected a file with the names of the classes, found none", folder.path)
    names = dict(enumerate(read_lines(source)))
    return yolo_splits(folder, YoloFiles(_split_images(folder), names, source))


YOLO_LAYOUTS = (
    Layout(
        "YOLO: a data.yaml with train, val and names, and labels/*.txt next to images/",
        lambda folder: _yaml_file(folder) is not None,
        _from_yaml,
    ),
    Layout(
        "YOLO without data.yaml: classes.txt (or obj.names), images/{train,val}/ and labels/{train,val}/",
        lambda folder: _class_file(folder) is not None and bool(folder.pictures),
        _from_class_file,
    ),
)
