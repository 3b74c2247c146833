"""Reads YOLO: a text file for each image with a line for each object, and a data.yaml or a list of class names.

A line is the index of a class, then either centre, width and height of a box or the corners of a polygon, which
becomes the box around it. All are shares of the image's width and height. A confidence behind them, as `save_conf`
writes it, is not used. An empty or missing text file means that there are no objects.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..remarks import say_left_out
from ..schema import SourceImage, SourceObject, SourceSplit, locate
from .folder import UPLOAD_PREFIX, DataFolder
from .shapes import box_of_flat_points
from .text import number, read_text

NO_LABELS = {"classes.txt", "labels.txt", "readme.txt", "license.txt", "notes.txt", "train.txt", "val.txt", "test.txt"}
"""Text files, in small letters, that may lie among the label files without being label files."""


@dataclass(frozen=True)
class YoloFiles:
    """The images of each split, the class names by index, and the file that errors name.

    `keypoints` says that what follows the four numbers of a box are points of a pose, not a polygon.
    """

    images: Mapping[str, Sequence[Path]]
    names: Mapping[int, str]
    source: Path
    keypoints: bool = False


def yolo_splits(folder: DataFolder, files: YoloFiles) -> dict[str, SourceSplit]:
    """Read splits in YOLO format.

    The labels of `…/images/a/b.jpg` are in `…/labels/a/b.txt`, or else beside the image. Images are numbered from 1
    within a split, objects by their line. Label files without an image are counted in a warning.

    Raises:
        DataError: no label file is found for any image of the training or the validation data.
    """
    labels = {split: _label_files(images) for split, images in files.images.items()}
    for split, images in files.images.items():
        found = labels[split]
        if images and split != "test" and not any(path.is_file() for path in found):
            raise locate(f"none of the {len(images)} images has a label file; looked for {found[0]}", images[0])
    splits = {}
    for split, images in files.images.items():
        records = [
            SourceImage(image, index, None, None, _objects(label, files.keypoints), annotation_file=label)
            for index, (image, label) in enumerate(zip(images, labels[split], strict=True), start=1)
        ]
        splits[split] = SourceSplit(records, files.names, files.source)
    _say_labels_without_image(folder, [path for found in labels.values() for path in found])
    return splits


def _label_files(images: Sequence[Path]) -> list[Path]:
    """Return the label file of each image; it may have the prefix that Label Studio gave to the image."""
    found = [_label_file(image) for image in images]
    missing = {index for index, path in enumerate(found) if not path.is_file()}
    prefixed: dict[Path, Path] = {}
    for place in {found[index].parent for index in missing}:
        for path in sorted(place.glob("*.txt")) if place.is_dir() else ():
            plain = UPLOAD_PREFIX.sub("", path.name)
            if plain != path.name:
                prefixed.setdefault(place / plain, path)
    return [prefixed.get(path, path) if index in missing else path for index, path in enumerate(found)]


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    folders = [part.lower() for part in parts[:-1]]
    beside = image.with_suffix(".txt")
    if "images" not in folders:
        return beside
    last = len(folders) - 1 - folders[::-1].index("images")
    apart = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
    return beside if beside.is_file() and not apart.is_file() else apart


def _say_labels_without_image(folder: DataFolder, used: Sequence[Path]) -> None:
    """Warn of label files whose image is not there: their objects would be missed without a word."""
    places = {path.parent for path in used if path.is_file() and path.parent != folder.path}
    known = {os.path.normpath(path) for path in used}
    left = [
        folder.name_of(path)
        for place in sorted(places)
        for path in sorted(place.glob("*.txt"))
        if os.path.normpath(path) not in known and path.name.lower() not in NO_LABELS and path.stat().st_size
    ]
    say_left_out(folder.path, left, "label file", "to which there is no image")


def _objects(path: Path, keypoints: bool) -> list[SourceObject]:
    if not path.is_file():
        return []
    lines = read_text(path, replace=True).splitlines()
    return [_object(line.split(), index, keypoints) for index, line in enumerate(lines, 1) if line.strip()]


def _object(words: list[str], index: int, keypoints: bool) -> SourceObject:
    """Read one line. A text that is no number stays as it is, for the check to complain about."""
    values = [number(word) for word in words]
    category = int(values[0]) if isinstance(values[0], float) and values[0].is_integer() else words[0]
    box = values[1:5] if keypoints else values[1:]
    if any(isinstance(value, str) for value in box):
        return SourceObject(index, box, category, box_format="cxcywhn")
    if len(box) >= 5 and len(box) % 2 == 1 and 0 <= box[-1] <= 1:
        box = box[:-1]  # the last number is a confidence
    if len(box) >= 6 and len(box) % 2 == 0:
        box = box_of_flat_points(box)
        return SourceObject(index, box, category, box_format="xywhn", from_outline=True)
    return SourceObject(index, box, category, box_format="cxcywhn")


def say_missing_test_images(source: Path, problem: str) -> None:
    """Warn that the test images which a file speaks of are not there; training does not need them."""
    warnings.warn(f"{source}, field 'test': {problem}; there is no test split", stacklevel=2)
