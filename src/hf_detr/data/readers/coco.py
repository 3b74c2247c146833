"""Reads COCO detection files: one json of images, annotations and categories, and the folders of the images.

Many tools write such files, and not all as COCO itself does. These harmless differences are read: numbers as 96.0 or
"96", ids of text, annotations without ids, an iscrowd of null, polygons or masks without a bbox.
A category that only names the others is left out. No object has such a category, and others call it their
supercategory or have its name too (Roboflow writes one).
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..options import ReadOptions
from ..remarks import in_short
from ..schema import RepeatedIdError, SourceImage, SourceObject, SourceSplit, locate
from ..split_checks import dataset_from_split
from .folder import DataFolder
from .shapes import box_of_segmentation
from .text import integer, number, read_json

EXPECTED = "a COCO detection json"


@dataclass(frozen=True)
class CocoFile:
    """A COCO detection file of a split, and the folders where its images are expected, the likeliest first."""

    path: Path
    near: Sequence[Path]


def read_coco(annotation_file: str | Path, image_folder: str | Path, options: ReadOptions | None = None) -> Dataset:
    """Read a COCO detection file and its images into the schema of `detection_features`.

    Args:
        annotation_file: the json.
        image_folder: the folder in which the json's file names are.
        options: how boxes and unusable images are taken; by default `ReadOptions()`.

    Raises:
        DataError: the json is not COCO detection or a record is unusable; see `coco_splits` and `dataset_from_split`.
    """
    folder = DataFolder(Path(image_folder))
    split = coco_splits(folder, {"train": CocoFile(Path(annotation_file), [folder.path])})["train"]
    return dataset_from_split(replace(split, options=options or ReadOptions()))


def coco_splits(folder: DataFolder, files: Mapping[str, CocoFile]) -> dict[str, SourceSplit]:
    """Read the COCO detection file of each split.

    Category ids, whatever they start from and skip, become the labels 0..K-1 in the order of the ids. Ids of images
    that are whole numbers are kept; if one of them is another text, the images are numbered from 1. Images without
    annotations are kept, and so are crowd regions. Images are paths. Annotations of an image that the json does not
    declare make a record without an image.

    Raises:
        DataError: a json is not COCO detection, or an entry is not an object, has no id or names no file.
    """
    contents = {split: load_coco_json(file.path) for split, file in files.items()}
    used = {integer(a.get("category_id")) for c in contents.values() for a in c["annotations"] if isinstance(a, dict)}
    several = len(files) > 1
    return {
        split: _split(folder, contents[split], file, used, split if several else None) for split, file in files.items()
    }


def load_coco_json(path: Path) -> dict[str, Any]:
    """Return the content of a COCO detection json.

    Raises:
        DataError: the file is missing, is not json, or lacks the lists `images`, `annotations` and `categories`.
    """
    content = read_json(path, EXPECTED)
    if not isinstance(content, dict):
        raise locate(f"expected a COCO detection json, an object, got a {type(content).__name__}", path)
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise locate(f"expected a COCO detection json with a list '{name}', found {sorted(content)}", path)
    return content


def _split(folder: DataFolder, content: dict[str, Any], file: CocoFile, used: set, split: str | None) -> SourceSplit:
    names = _without_groups(_category_names(content["categories"], file.path), content["categories"], used, file.path)
    objects = _objects_by_image(content["annotations"], file.path)
    entries = [_image_entry(entry, file.path) for entry in content["images"]]
    images = folder.find_all([name for _, name, _, _ in entries], file.near, split)
    ids = _image_ids([image_id for image_id, *_ in entries], images, file.path)
    records = [
        SourceImage(image, image_id, width, height, [item for _, item in objects.get(key, ())])
        for (key, _, width, height), image_id, image in zip(entries, ids, images, strict=True)
    ]
    declared = {image_id for image_id, *_ in entries}
    records += [
        SourceImage(None, image_id, None, None, [item for _, item in found])
        for image_id, found in objects.items()
        if image_id not in declared
    ]
    return SourceSplit(records, names, file.path)


def _get(entry: Any, name: str, source: Path, **place: Any) -> Any:
    """Return a field of an entry of the json without which the rest cannot be read."""
    if not isinstance(entry, dict) or name not in entry:
        raise locate(f"this field is required, but the entry is {entry!r}", source, field=name, **place)
    return entry[name]


def _key(value: Any) -> Hashable:
    """Return an id in a form in which 7, 7.0 and "7" are the same; any other value stays as it is."""
    value = integer(value)
    return value if isinstance(value, int | str) else repr(value)


def _image_ids(keys: list, images: Sequence[Path], source: Path) -> list:
    """Return ids of images as they are, or 1, 2, 3 and so on where they are texts."""
    if not any(isinstance(key, str) for key in keys):
        return keys
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    if repeated:
        first, second, *_ = [image for key, image in zip(keys, images, strict=True) if key == repeated[0]]
        raise RepeatedIdError(source, repeated[0], first, second)
    return [*range(1, len(keys) + 1)]


def _category_names(categories: list, source: Path) -> dict[Hashable, str]:
    names: dict[Hashable, str] = {}
    for entry in categories:
        category_id, name = integer(_get(entry, "id", source)), _get(entry, "name", source)
        if isinstance(category_id, bool) or not isinstance(category_id, int | str):
            raise locate(f"expected a whole number or a text, got {category_id!r} in {entry}", source, field="id")
        if isinstance(name, bool) or not isinstance(name, int | float | str):
            raise locate(f"expected str, got {name!r} in {entry}", source, field="name")
        if category_id in names:
            raise locate(f"category id {category_id} appears more than once", source, field="categories")
        names[category_id] = str(name)
    numbered = all(isinstance(key, int) for key in names)
    return dict(sorted(names.items())) if numbered else names


def _without_groups(names: dict[Hashable, str], categories: list, used: set, source: Path) -> dict[Hashable, str]:
    """Leave out categories that only name others, and say so."""
    parents = {integer(entry["id"]): str(entry["supercategory"]) for entry in categories if entry.get("supercategory")}
    groups: list[Hashable] = []
    for key, name in names.items():
        others = [other for other in names if other != key and other not in groups]
        is_parent = any(parents.get(other) == name for other in others)
        repeats = any(names[other] == name for other in others)
        if key not in used and (is_parent or repeats):
            groups.append(key)
    if groups:
        listed = in_short([repr(names[key]) for key in groups])
        warnings.warn(
            f"{source}: left out the {'category' if len(groups) == 1 else 'categories'} {listed}, which no object has "
            "and which only names other categories",
            stacklevel=2,
        )
    return {key: name for key, name in names.items() if key not in groups}


def _objects_by_image(annotations: list, source: Path) -> dict[Hashable, list[tuple[Any, SourceObject]]]:
    """Return the objects with the id of their image; those without an id of their own are numbered by their place."""
    objects = defaultdict(list)
    for place, annotation in enumerate(annotations, start=1):
        image_id = _get(annotation, "image_id", source)
        own = integer(annotation.get("id"))
        box, from_outline = _box(annotation)
        item = SourceObject(
            id=own if isinstance(own, int) and not isinstance(own, bool) else place,
            bbox=box,
            category=None if annotation.get("category_id") is None else _key(annotation["category_id"]),
            area=number(annotation.get("area")),
            iscrowd=_flag(annotation.get("iscrowd")),
            from_outline=from_outline,
        )
        objects[_key(image_id)].append((image_id, item))
    return objects


def _box(annotation: dict[str, Any]) -> tuple[Any, bool]:
    """Return the box of an annotation, and whether it is computed from polygons or a mask."""
    box = annotation.get("bbox")
    if not box and annotation.get("segmentation"):
        return box_of_segmentation(annotation["segmentation"]), True
    return ([number(value) for value in box] if isinstance(box, list) else box), False


def _flag(value: Any) -> Any:
    """Return the number that a yes or no of json means: null and false are 0."""
    return 0 if value is None else int(value) if isinstance(value, bool) else integer(value)


def _image_entry(entry: Any, source: Path) -> tuple[Hashable, str, Any, Any]:
    """Return id, file name, width and height of an image."""
    image_id = _get(entry, "id", source)
    name = _get(entry, "file_name", source, image_id=image_id)
    if not isinstance(name, str):
        raise locate(f"expected str, got {name!r}", source, image_id, field="file_name")
    return _key(image_id), name, integer(entry.get("width")), integer(entry.get("height"))
