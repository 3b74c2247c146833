"""Writes small COCO data sets for the tests to read and to break."""

import json
from pathlib import Path

from PIL import Image

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]


def annotation(annotation_id: int = 1, image_id: int = 1, **changes) -> dict:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 3,
        "bbox": [4, 6, 20, 10],
        "area": 150,
        "iscrowd": 0,
        **changes,
    }


def image_entry(image_id: int = 1, **changes) -> dict:
    return {"id": image_id, "file_name": f"{image_id}.png", "width": 40, "height": 30, **changes}


def coco_content(annotations: list | None = None, images: list | None = None, categories: list | None = None) -> dict:
    return {
        "images": [image_entry()] if images is None else images,
        "annotations": [annotation()] if annotations is None else annotations,
        "categories": CATEGORIES if categories is None else categories,
    }


def write_coco(json_path: Path, image_folder: Path, content: dict) -> tuple[Path, Path]:
    """Write the json, and a plain picture of the stated size for each image that it lists."""
    json_path.parent.mkdir(parents=True, exist_ok=True)
    image_folder.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(content))
    for entry in content["images"]:
        Image.new("RGB", (entry["width"], entry["height"]), (entry["id"] % 256, 90, 120)).save(
            image_folder / entry["file_name"]
        )
    return json_path, image_folder
