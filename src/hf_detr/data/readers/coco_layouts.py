"""Finds COCO json files and their images in the ways in which folders arrange them."""

import warnings
from collections.abc import Callable
from pathlib import Path

from ..schema import SourceSplit, locate
from .coco import CocoFile, coco_splits
from .folder import DataFolder, existing
from .layouts import Layout, picture_folders, split_folders
from .splits_by_name import split_named
from .text import mentions

ROBOFLOW_FILE = "_annotations.coco.json"
FOLDERS = ("", "annotations", "Annotations")

Files = dict[str, CocoFile]


def _json_files(folder: DataFolder) -> list[Path]:
    """Return the COCO json files directly in a folder or its annotations/."""
    # A broken file with a name of COCO is not passed over, because its objects would be missed without a word.
    return [
        path
        for path in folder.annotation_files(".json", *FOLDERS)
        if path.name.startswith("instances_") or _looks_like_coco(path)
    ]


def _looks_like_coco(path: Path) -> bool:
    return mentions(path, '"images"', '"annotations"', '"categories"')


def _named_files(folder: DataFolder) -> Files:
    """Return the files of folders with a json for each split, which is named like its split."""
    if folder.given is not None:
        return {}
    files = _json_files(folder)
    files = [path for path in files if path.name.startswith("instances_")] or files
    found: Files = {}
    for path in files:
        split = split_named(path.stem)
        if split is None or _is_without_annotations(path):
            continue
        if split in found:
            raise locate(f"expected one split '{split}', found {found[split].path.name} and {path.name}", folder.path)
        found[split] = CocoFile(path, _folders_of(folder, path, split))
    return found


def _is_without_annotations(path: Path) -> bool:
    """Return whether a file describes test images whose annotations nobody publishes."""
    return split_named(path.stem) == "test" and mentions(path, '"images"') and not mentions(path, '"annotations"')


def _folders_of(folder: DataFolder, path: Path, split: str) -> list[Path]:
    own = path.stem.removeprefix("instances_")
    named = [folder.subfolder(own), folder.subfolder(f"images/{own}")]
    return existing([*named, *picture_folders(folder, split, path.parent)])


def _split_folder_files(folder: DataFolder) -> Files:
    """Return the files of folders with a folder for each split, which holds its json."""
    found = {}
    for split, place in split_folders(folder).items():
        own = DataFolder(place)
        files = own.annotation_files(".json")
        named = [path for path in files if path.name == ROBOFLOW_FILE]
        files = named or _json_files(own)
        if len(files) == 1:
            near = existing([place, place / "images", files[0].parent, *picture_folders(folder, split)])
            found[split] = CocoFile(files[0], near)
    return found


def _single_file(folder: DataFolder) -> Files:
    # Where the file is not COCO, the error of reading it tells what it lacks.
    files = _json_files(folder) or folder.annotation_files(".json")
    if len(files) != 1:
        return {}
    own = files[0].stem.removeprefix("instances_")
    named = [folder.subfolder(f"images/{own}"), folder.subfolder(own), folder.subfolder("images")]
    near = existing([*named, *picture_folders(folder, "train", files[0].parent)])
    return {"train": CocoFile(files[0], near)}


def _layout(description: str, find: Callable[[DataFolder], Files]) -> Layout:
    def read(folder: DataFolder) -> dict[str, SourceSplit]:
        for path in folder.annotation_files(".json", *FOLDERS):
            if _is_without_annotations(path):
                warnings.warn(f"{path}: left out this file of test images: it has no annotations", stacklevel=2)
        return coco_splits(folder, find(folder))

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
