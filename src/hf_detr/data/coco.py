"""COCO detection files: one json of images, annotations and categories, and a folder of images."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.contrib.concurrent import thread_map

from .images import displayed_size
from .schema import SourceImage, SourceObject, dataset_from_records, locate

PROGRESS_FROM = 2000
"""With more images than this, checking their headers takes long enough to show progress."""


def read_coco(annotation_file: str | Path, image_folder: str | Path) -> Dataset:
    """Read a COCO detection file and its images into the schema of `detection_features`.

    Category ids, whatever they start from and skip, become the labels 0..K-1 in the order of the ids. Images without
    annotations are kept, and so are crowd regions. Images are stored as paths and decoded on access; here each file's
    header is read, to know that it exists and is as large as the json says. Boxes refer to the image as displayed,
    its EXIF orientation applied.

    Raises:
        DataError: the json is not COCO detection, refers to an image or category that it does not declare, holds an
            unusable box (see `check_record`), or an image file is missing, unreadable or of another size.
    """
    annotation_file, image_folder = Path(annotation_file), Path(image_folder)
    content = load_coco_json(annotation_file)
    names = _category_names(content["categories"], annotation_file)
    objects = _objects_by_image(content, annotation_file)
    images = [_image(entry, objects, image_folder, annotation_file) for entry in content["images"]]
    dataset = dataset_from_records(images, names, annotation_file)
    _check_files(images, annotation_file)
    return dataset


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


def _get(entry: Any, name: str, kind: type, source: Path, **place: Any) -> Any:
    """Return a required field of an entry of the json, which must be of the given kind."""
    if not isinstance(entry, dict) or name not in entry:
        raise locate(f"this field is required, but the entry is {entry!r}", source, field=name, **place)
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise locate(f"expected {kind.__name__}, got {value!r}", source, field=name, **place)
    return value


def _category_names(categories: list, source: Path) -> dict[int, str]:
    names = {}
    for entry in categories:
        category_id = _get(entry, "id", int, source)
        if category_id in names:
            raise locate(f"category id {category_id} appears more than once", source, field="categories")
        names[category_id] = _get(entry, "name", str, source)
    return dict(sorted(names.items()))


def _objects_by_image(content: dict[str, Any], source: Path) -> dict[int, list[SourceObject]]:
    declared = {_get(entry, "id", int, source) for entry in content["images"]}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        annotation_id = _get(annotation, "id", int, source)
        image_id = _get(annotation, "image_id", int, source, annotation_id=annotation_id)
        place = {"image_id": image_id, "annotation_id": annotation_id}
        if image_id not in declared:
            raise locate("no image of this id is declared under 'images'", source, field="image_id", **place)
        objects[image_id].append(
            SourceObject(
                id=annotation_id,
                bbox=_get(annotation, "bbox", list, source, **place),
                category=_get(annotation, "category_id", int, source, **place),
                area=annotation.get("area"),
                iscrowd=annotation.get("iscrowd", 0),
            )
        )
    return objects


def _image(entry: dict, objects: dict[int, list[SourceObject]], folder: Path, source: Path) -> SourceImage:
    image_id = entry["id"]
    return SourceImage(
        image=folder / _get(entry, "file_name", str, source, image_id=image_id),
        image_id=image_id,
        width=_get(entry, "width", int, source, image_id=image_id),
        height=_get(entry, "height", int, source, image_id=image_id),
        objects=objects.get(image_id, ()),
    )


def _check_files(images: list[SourceImage], source: Path) -> None:
    def check(image: SourceImage) -> None:
        size = displayed_size(image.image, image.image_id)
        if size != (image.width, image.height):
            raise locate(
                f"{source.name} says {image.width}x{image.height} pixels, but the image is displayed at "
                f"{size[0]}x{size[1]}",
                image.image,
                image.image_id,
                field="width, height",
            )

    thread_map(check, images, desc="Checking images", disable=len(images) <= PROGRESS_FROM, max_workers=8, leave=False)
