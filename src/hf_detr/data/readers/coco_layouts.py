"""The ways to arrange COCO json files and their images in a folder."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ..schema import SourceSplit, locate
from .coco import coco_split
from .layouts import SPLIT_NAMES, Layout, split_folders, split_named

ROBOFLOW_FILE = "_annotations.coco.json"
SAMPLED_NAMES = 20
"""So many of the listed images are looked for to find the folder that they are in: some may be missing."""

Files = tuple[Path, Path]  # annotation file and image folder


def _json_files(folder: Path) -> list[Path]:
    """Return the COCO json files directly in a folder or its annotations/."""
    files = [path for parent in (folder, folder / "annotations") for path in sorted(parent.glob("*.json"))]
    # One named as COCO names them is not passed over, however broken: what it should have held would be missed later.
    return [path for path in files if path.name.startswith("instances_") or _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    content = path.read_bytes()  # searching is much faster than parsing, and a broken file shall be found too
    return all(f'"{name}"'.encode() in content for name in ("images", "annotations", "categories"))


def _image_folder(file: Path, candidates: Iterable[Path]) -> Path | None:
    """Return the first folder in which an image of the json is."""
    text = file.read_bytes().decode(errors="replace")
    found = re.finditer(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    names = [json.loads(match[1], strict=False) for match, _ in zip(found, range(SAMPLED_NAMES), strict=False)]
    return next((folder for folder in candidates if any((folder / name).is_file() for name in names)), None)


def _named_files(folder: Path) -> dict[str, Files]:
    """Return the files of a json for each split, named like it."""
    files = _json_files(folder)
    files = [path for path in files if path.name.startswith("instances_")] or files
    found: dict[str, Files] = {}
    for path in files:
        split = split_named(path.stem)
        images = _folder_of_split(path, split, folder) if split else None
        if images is None:
            continue
        if split in found:
            raise locate(f"expected one split '{split}', found {found[split][0].name} and {path.name}", folder)
        found[split] = (path, images)
    return found


def _folder_of_split(file: Path, split: str, folder: Path) -> Path | None:
    names = (file.stem.removeprefix("instances_"), *SPLIT_NAMES[split])
    named = [parent / name for name in names for parent in (folder, folder / "images")]
    found = _image_folder(file, [*named, folder / "images", folder, file.parent])
    return found or next((path for path in named if path.is_dir()), None)


def _split_folder_files(folder: Path) -> dict[str, Files]:
    """Return the files of a folder for each split, with its json."""
    found = {}
    for split, path in split_folders(folder).items():
        files = [path / ROBOFLOW_FILE] if (path / ROBOFLOW_FILE).is_file() else _json_files(path)
        if len(files) == 1:
            found[split] = (files[0], _image_folder(files[0], [path, path / "images"]) or path)
    return found


def _single_file(folder: Path) -> dict[str, Files]:
    # Of a file that is not COCO, reading tells what it lacks.
    files = _json_files(folder) or sorted(folder.glob("*.json"))
    if len(files) != 1:
        return {}
    existing = [path for path in (folder / "images", folder / "train") if path.is_dir()]
    images = _image_folder(files[0], [*existing, folder, files[0].parent])
    return {"train": (files[0], images or next(iter(existing), folder))}


def _layout(description: str, find: Callable[[Path], dict[str, Files]]) -> Layout:
    def read(folder: Path) -> dict[str, SourceSplit]:
        return {split: coco_split(*files) for split, files in find(folder).items()}

    return Layout(description, lambda folder: "train" in find(folder), read)


COCO_LAYOUTS = (
    _layout(
        "COCO: a json for each split, such as instances_train*.json and instances_val*.json or train.json and "
        "val.json, in the folder or in annotations/; the images in folders of the same names (train2017/ for "
        "instances_train2017.json), in train/ and val/, or in images/",
        _named_files,
    ),
    _layout(
        f"COCO in folders train/, valid/ and test/, each with its json (Roboflow: {ROBOFLOW_FILE}) and its images",
        _split_folder_files,
    ),
)
COCO_SINGLE_LAYOUT = _layout(
    "a single COCO json, in the folder or in annotations/, with its images in images/ or in the folder", _single_file
)
