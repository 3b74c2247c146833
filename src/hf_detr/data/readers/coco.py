"""COCO detection files: one json of images, annotations and categories, and a folder of images."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..schema import ReadOptions, SourceImage, SourceObject, SourceSplit, locate
from ..split_checks import dataset_from_split


def read_coco(annotation_file: str | Path, image_folder: str | Path, options: ReadOptions | None = None) -> Dataset:
    """Read a COCO detection file and its images into the schema of `detection_features`.

    Args:
        annotation_file: the json.
        image_folder: the folder in which the json's file names are.
        options: how boxes and unusable images are taken; the defaults of `ReadOptions`.

    Raises:
        DataError: the json is not COCO detection or a record is unusable; see `coco_split` and `dataset_from_split`.
    """
    split = coco_split(annotation_file, image_folder)
    return dataset_from_split(replace(split, options=options or ReadOptions()))


def coco_split(annotation_file: str | Path, image_folder: str | Path) -> SourceSplit:
    """Read a COCO detection file.

    Category ids, whatever they start from and skip, become the labels 0..K-1 in the order of the ids. Images without
    annotations are kept, and so are crowd regions. Images are paths. Annotations of an image that
    the json does not declare make a record without an image.

    Raises:
        DataError: the json is not COCO detection, or an entry is not an object, has no id or names no file.
    """
    annotation_file, image_folder = Path(annotation_file), Path(image_folder)
    content = load_coco_json(annotation_file)
    names = _category_names(content["categories"], annotation_file)
    objects = _objects_by_image(content, annotation_file)
    records = [_image(entry, objects, image_folder, annotation_file) for entry in content["images"]]
    declared = {repr(record.image_id) for record in records}
    records += [
        SourceImage(None, found[0][0], None, None, [item for _, item in found])
        for image_id, found in objects.items()
        if image_id not in declared
    ]
    return SourceSplit(records, names, annotation_file)


def load_coco_json(path: Path) -> dict[str, Any]:
    """Return the content of a COCO detection json.

    Raises:
        DataError: the file is missing, is not json, or lacks the lists `images`, `annotations` and `categories`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise locate("the annotation file does not exist", path) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise locate(f"expected a COCO detection json, but this is not json ({error})", path) from error
    if not isinstance(content, dict):
        raise locate(f"expected a COCO detection json, an object, got a {type(content).__name__}", path)
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise locate(f"expected a COCO detection json with a list '{name}', found {sorted(content)}", path)
    return content


def _get(entry: Any, name: str, source: Path, **place: Any) -> Any:
    """Return a field of an entry of the json without which the rest cannot be read."""
    if not isinstance(entry, dict) or name not in entry:
        raise locate(f"this field is required, but the entry is {entry!r}", source, field=name, **place)
    return entry[name]


def _category_names(categories: list, source: Path) -> dict[int, str]:
    names = {}
    for entry in categories:
        category_id, name = _get(entry, "id", source), _get(entry, "name", source)
        for field, value, kind in (("id", category_id, int), ("name", name, str)):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise locate(f"expected {kind.__name__}, got {value!r} in {entry}", source, field=field)
        if category_id in names:
            raise locate(f"category id {category_id} appears more than once", source, field="categories")
        names[category_id] = name
    return dict(sorted(names.items()))


def _objects_by_image(content: dict[str, Any], source: Path) -> dict[str, list[tuple[Any, SourceObject]]]:
    """Return the objects with their image id, by what the id looks like: 1 and "1" are different images."""
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        image_id = _get(annotation, "image_id", source)
        category = annotation.get("category_id")
        item = SourceObject(
            id=annotation.get("id"),
            bbox=annotation.get("bbox"),
            category=category if isinstance(category, int | str) else repr(category),
            area=annotation.get("area"),
            iscrowd=annotation.get("iscrowd", 0),
        )
        objects[repr(image_id)].append((image_id, item))
    return objects


def _image(entry: Any, objects: dict[str, list], folder: Path, source: Path) -> SourceImage:
    image_id = _get(entry, "id", source)
    name = _get(entry, "file_name", source, image_id=image_id)
    if not isinstance(name, str):
        raise locate(f"expected str, got {name!r}", source, image_id, field="file_name")
    image = folder / name
    found = [item for _, item in objects.get(repr(image_id), ())]
    return SourceImage(image, image_id, entry.get("width"), entry.get("height"), found)
