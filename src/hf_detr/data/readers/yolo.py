"""YOLO: a text file for each image, a line for each object, and a data.yaml or a list of class names.

A line is the index of a class, then either centre, width and height of a box or the corners of a polygon, which
becomes the box around it; all as shares of the image's width and height. An empty or missing text file means no
objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..images import is_image
from ..schema import SourceImage, SourceObject, SourceSplit, locate
from .layouts import SPLIT_NAMES, Layout, images_within

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt")


@dataclass(frozen=True)
class YoloFiles:
    """The images of each split, the class names by index, and the file that errors name.

    `keypoints` says that what follows the four numbers of a box are points of a pose, not a polygon.
    """

    images: Mapping[str, Sequence[Path]]
    names: Mapping[int, str]
    source: Path
    keypoints: bool = False


def yolo_splits(files: YoloFiles) -> dict[str, SourceSplit]:
    """Read splits in YOLO format.

    The labels of `…/images/a/b.jpg` are in `…/labels/a/b.txt`, or else beside the image. Images are
    numbered from 1 within a split, objects by their line.

    Raises:
        DataError: no label file is found for any image of the training or the validation data.
    """
    splits = {}
    for split, images in files.images.items():
        labels = [_label_file(image) for image in images]
        if images and split != "test" and not any(path.is_file() for path in labels):
            raise locate(f"none of the {len(images)} images has a label file; looked for {labels[0]}", images[0])
        records = [
            SourceImage(image, number, None, None, _objects(label, files.keypoints), annotation_file=label)
            for number, (image, label) in enumerate(zip(images, labels, strict=True), start=1)
        ]
        splits[split] = SourceSplit(records, files.names, files.source)
    return splits


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    beside = image.with_suffix(".txt")
    if "images" not in parts[:-1]:
        return beside
    last = len(parts) - 2 - parts[-2::-1].index("images")
    apart = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
    return beside if beside.is_file() and not apart.is_file() else apart


def _objects(path: Path, keypoints: bool) -> list[SourceObject]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [_object(line.split(), number, keypoints) for number, line in enumerate(lines, 1) if line.strip()]


def _object(words: list[str], number: int, keypoints: bool) -> SourceObject:
    """Read one line; what is no number stays as it is, for the check to complain about."""
    values = [_number(word) for word in words]
    category = int(values[0]) if isinstance(values[0], float) and values[0].is_integer() else words[0]
    box = values[1:5] if keypoints else values[1:]
    is_outline = len(box) >= 6 and len(box) % 2 == 0 and not any(isinstance(value, str) for value in box)
    if is_outline:
        x, y = box[::2], box[1::2]
        return SourceObject(number, [min(x), min(y), max(x), max(y)], category, box_format="xyxyn", from_outline=True)
    return SourceObject(number, box, category, box_format="cxcywhn")


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


# Where the files are: with a data.yaml


def _yaml_file(folder: Path) -> Path | None:
    named = [folder / name for name in YAML_NAMES if (folder / name).is_file()]
    others = [path for path in sorted(folder.glob("*.y*ml")) if _mentions(path, "names:", "train:")]
    return next(iter([*named, *others]), None)


def _mentions(path: Path, *words: str) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return all(word in text for word in words)


def _from_yaml(folder: Path) -> dict[str, SourceSplit]:
    source = _yaml_file(folder)
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise locate(f"expected a yaml file, but it cannot be read ({error})", source) from error
    if not isinstance(content, dict):
        raise locate(f"expected 'train', 'val' and 'names', got a {type(content).__name__}", source)
    names = _names(content, source)
    roots = [folder / str(content.get("path") or "."), folder]
    images = {}
    for split, keys in YAML_KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is not None:
            images[split] = _yaml_images(split, value, roots, source)
    if not images.get("train"):
        raise locate(f"no training images found; it has train: {content.get('train')!r}", source, field="train")
    return yolo_splits(YoloFiles(images, names, source, "kpt_shape" in content))


def _names(content: dict, source: Path) -> dict[int, str]:
    names = content.get("names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names:
        raise locate(f"expected the names of the classes, a list or a mapping, got {names!r}", source, field="names")
    count = content.get("nc", len(names))
    if count != len(names):
        raise locate(f"it says {count}, but 'names' has {len(names)}: {list(names.values())}", source, field="nc")
    try:
        return {int(index): str(name) for index, name in sorted(names.items(), key=lambda item: int(item[0]))}
    except ValueError as error:
        raise locate(
            f"expected the indices of the classes as keys, got {list(names)}", source, field="names"
        ) from error


def _yaml_images(split: str, value: Any, roots: list[Path], source: Path) -> list[Path]:
    """Return the images of a folder, a text file of paths, or a list of those."""
    images: list[Path] = []
    for place in value if isinstance(value, list) else [value]:
        found = _resolved(str(place), roots)
        if found is not None:
            images += images_within(found) if found.is_dir() else _listed_images(found, roots)
        elif split == "train":
            tried = ", ".join(str(path) for path in _candidates(str(place), roots))
            raise locate(f"there is no {place!r}; looked for {tried}", source, field=split)
        # exporters declare a validation or test folder even where it is empty and therefore missing
    return images


def _candidates(place: str, roots: list[Path]) -> list[Path]:
    """Return where a path of a data.yaml may lead: many are relative to the folder above, or to another machine."""
    within = place
    while within.startswith(("../", "./")):
        within = within.partition("/")[2]
    return list(dict.fromkeys([root / name for name in (place, within) for root in roots]))


def _resolved(place: str, roots: list[Path]) -> Path | None:
    return next((path for path in _candidates(place, roots) if path.exists()), None)


def _listed_images(source: Path, roots: list[Path]) -> list[Path]:
    """Return the images that a text file lists; one that is not found stays, for the check to name it."""
    lines = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    roots = [source.parent, *roots, source.parent.parent]
    return [_resolved(line, roots) or source.parent / line for line in lines]


# Where the files are: without a data.yaml


def _class_file(folder: Path) -> Path | None:
    return next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)


def _split_images(folder: Path) -> dict[str, list[Path]]:
    found = {}
    for split, names in SPLIT_NAMES.items():
        places = [p for n in names for p in (f"images/{n}", f"{n}/images", n, f"obj_{n}_data", f"{n}.txt")]
        place = next((folder / place for place in places if (folder / place).exists()), None)
        if place is not None:
            found[split] = images_within(place) if place.is_dir() else _listed_images(place, [folder])
    if "train" not in found:
        alone = folder / "images" if (folder / "images").is_dir() else folder
        images = sorted(path for path in alone.iterdir() if is_image(path))
        found |= {"train": images} if images else {}
    return found


def _from_class_file(folder: Path) -> dict[str, SourceSplit]:
    source = _class_file(folder)
    lines = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines()]
    return yolo_splits(YoloFiles(_split_images(folder), dict(enumerate(line for line in lines if line)), source))


YOLO_LAYOUTS = (
    Layout(
        "YOLO: a data.yaml with train, val and names, and labels/*.txt next to images/",
        lambda folder: _yaml_file(folder) is not None,
        _from_yaml,
    ),
    Layout(
        "YOLO without data.yaml: classes.txt (or obj.names), images/{train,val}/ and labels/{train,val}/",
        lambda folder: _class_file(folder) is not None and "train" in _split_images(folder),
        _from_class_file,
    ),
)
