"""Warns of the files in a folder that were not used: every picture is used, or one line says that it was not."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .images import is_image
from .readers.folder import DataFolder, files_below
from .remarks import counted, in_short, say_left_out
from .schema import SourceSplit

ANNOTATION_SUFFIXES = {
    *(".json", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".parquet", ".arrow", ".names", ".data"),
    *(".cfg", ".md", ".html", ".rst", ".log", ".cache", ".pbtxt", ".lock"),
}
"""The suffixes of files about pictures, which nobody takes for pictures."""
MASK_FOLDERS = {"SegmentationClass", "SegmentationObject", "SegmentationClassRaw", "SegmentationObjectRaw"}
"""Folders in which Pascal VOC keeps masks."""


def say_left_out_files(folder: DataFolder, splits: Mapping[str, SourceSplit]) -> None:
    """Warn once of the pictures that no annotation names, and once of files that are no pictures.

    Of a data set that was given as one annotation file, only the folders that hold its pictures count.
    """
    images = [
        record.image for split in splits.values() if split.pictures is None for record in split.records if record.image
    ]
    used = {os.path.normpath(image) for image in images if isinstance(image, Path)}
    if folder.given is None:
        names = folder.files
    else:
        places = sorted({path for path in map(os.path.dirname, used) if os.path.isdir(path)})
        names = [f"{place}/{name}" for place in places for name in sorted(files_below(Path(place))) if "/" not in name]
    root = os.fspath(folder.path)
    pictures = [name for name in names if is_image(name) and os.path.normpath(os.path.join(root, name)) not in used]
    pictures = [name for name in pictures if not MASK_FOLDERS & set(PurePosixPath(name).parts)]
    say_left_out(folder.path, pictures, "picture", "that no annotation names")
    others = [name for name in names if not is_image(name) and not _is_annotation(name)]
    others = [name for name in others if os.path.normpath(os.path.join(root, name)) not in used]
    say_left_out(folder.path, others, "file", "that is no picture", "that are no pictures")


def say_not_found(folder: DataFolder) -> None:
    """Warn once of names that lead to several pictures, or to the picture of another name."""
    unclear = [f"{folder.name_of(path)} ({why})" for path, why in folder.not_found.items() if "," in why]
    if unclear:
        names = counted(len(unclear), "name")
        warnings.warn(f"{folder.path}: {names} of pictures cannot be followed: {in_short(unclear)}", stacklevel=2)


def _is_annotation(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in ANNOTATION_SUFFIXES or path.stem.lower() in ("readme", "license")
