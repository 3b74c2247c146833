"""Loads every kind of detection data: the built-in set, a folder in a known layout, a file, an archive."""

import re
from dataclasses import replace
from pathlib import Path

from datasets import DatasetDict

from .archives import is_archive, unpacked
from .left_out import say_left_out_files, say_not_found
from .options import ReadOptions
from .readers.coco_layouts import COCO_LAYOUTS, COCO_SINGLE_LAYOUT
from .readers.csv_tables import CSV_LAYOUT, missing_column
from .readers.cvat import CVAT_LAYOUT
from .readers.datumaro import DATUMARO_LAYOUT
from .readers.folder import DataFolder, is_dropping
from .readers.image_folder import IMAGE_FOLDER_LAYOUT
from .readers.json_lists import JSON_LIST_LAYOUTS
from .readers.labelme import LABELME_LAYOUT
from .readers.layouts import Layout
from .readers.supervisely import SUPERVISELY_LAYOUT
from .readers.tables import HUB_NAME, TABLE_LAYOUT, hub_tables, table_splits
from .readers.via import VIA_LAYOUT
from .readers.voc import VOC_LAYOUTS
from .readers.yolo_layouts import YOLO_LAYOUTS
from .schema import SourceSplit, locate
from .split_checks import datasets_from_splits
from .splits import with_validation
from .synthetic import synthetic_split

SYNTHETIC_TRAIN_IMAGES = 500
SYNTHETIC_VALIDATION_FIRST_ID = 1_000_000
ANNOTATION_FOLDERS = ("annotations", "labels", "ann")
"""Where an annotation file is in a folder of one of these names, in small letters, the data are the folder above."""
NO_FOLDER = (
    "expected a folder of detection data, an archive or an annotation file of it, a data set on the Hub as "
    '"owner/name", or the word "synthetic"; there is no such folder or file'
)


def load_detection_data(data: str | Path, seed: int = 0, options: ReadOptions | None = None) -> DatasetDict:
    """Load detection data as a `DatasetDict` with the splits `train` and `validation`, and `test` where there is one.

    Classes get the labels that they have in the training data; the other splits may show fewer of them.

    Args:
        data: "synthetic" or "synthetic:500" for the built-in set (with the number of training images; a fifth as
            many are for validation), a folder in one of `LAYOUTS`, a zip or tar of one, an annotation file such as
            data.yaml or a json, or "owner/name" of a data set on the Hub ("owner/name:subset" where it has several).
        seed: the number with which the synthetic images are drawn, and data without a validation split are split.
        options: how the files are to be taken where they are not as their layout says; by default `ReadOptions()`.

    Raises:
        DataError: no known layout is found (the error lists them), a split shows classes that the training data lack,
            or a record is unusable (see `dataset_from_split`).
    """
    return datasets_from_splits(source_splits(data, seed, options))


def source_splits(data: str | Path, seed: int = 0, options: ReadOptions | None = None) -> dict[str, SourceSplit]:
    """Read detection data as its files have them, without checking sizes, ids and boxes.

    Args:
        data, seed, options: see `load_detection_data`.

    Returns:
        the splits `train`, `validation` and, where there is one, `test`.

    Raises:
        DataError: no known layout is found (the error lists them), or something cannot be read.
    """
    splits = {name: replace(split, options=options or ReadOptions()) for name, split in _read(data, seed).items()}
    return with_validation(splits, data, seed)


def _read(data: str | Path, seed: int) -> dict[str, SourceSplit]:
    if isinstance(data, str) and re.fullmatch(r"synthetic(:.*)?", data):
        return _synthetic(data, seed)
    path = Path(data)
    if not path.exists():
        if not isinstance(data, str) or not HUB_NAME.fullmatch(data):
            raise locate(NO_FOLDER, path)
        return table_splits(hub_tables(data), data)
    layout, folder = layout_of(path)
    splits = layout.read(folder)
    say_not_found(folder)
    say_left_out_files(folder, splits)
    return splits


def layout_of(path: Path) -> tuple[Layout, DataFolder]:
    """Return the layout of a folder, of an archive or of an annotation file, and the folder where everything is.

    A folder that holds nothing but another one is as good as that one.

    Raises:
        DataError: no known layout is found; the error lists the layouts.
    """
    folder = _opened(path)
    inner: DataFolder | None = folder
    while inner is not None:
        for layout in LAYOUTS:
            if layout.detect(inner):
                return layout, inner
        inner = _only_folder(inner)
    for name in folder.files if folder.given is None else [folder.given.name]:
        problem = missing_column(folder.path / name) if name.lower().endswith(".csv") else None
        if problem is not None:
            raise locate(problem, folder.path / name)
    looked_for = "".join(f"\n  - {layout.description}" for layout in LAYOUTS)
    found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.path.iterdir())[:10]
    start = "" if folder.given else f"\nThe folder starts with {found}"
    only_pictures = folder.given is None and folder.pictures and folder.pictures == folder.files
    problem = "no annotation file in this folder" if only_pictures else "no known layout found"
    raise locate(f"{problem}; looked for{looked_for}{start}", path)


def _opened(path: Path) -> DataFolder:
    if path.is_dir():
        return DataFolder(path)
    if is_archive(path):
        return DataFolder(unpacked(path))
    folder = path.parent
    if folder.name.lower() in ANNOTATION_FOLDERS:
        folder = folder.parent
    return DataFolder(folder, given=path)


def _only_folder(folder: DataFolder) -> DataFolder | None:
    entries = [entry for entry in folder.path.iterdir() if not is_dropping(entry.name)]
    alone = len(entries) == 1 and entries[0].is_dir() and folder.given is None
    return DataFolder(entries[0]) if alone else None


def _synthetic(data: str, seed: int) -> dict[str, SourceSplit]:
    _, _, count = data.partition(":")
    if ":" in data and (not count.isascii() or not count.isdigit() or int(count) < 1):
        raise locate(f'expected "synthetic" or "synthetic:<number of training images>", got {data!r}')
    num_images = int(count) if count else SYNTHETIC_TRAIN_IMAGES
    return {
        "train": synthetic_split(num_images, seed=seed),
        "validation": synthetic_split(
            max(1, num_images // 5), seed=seed, first_image_id=SYNTHETIC_VALIDATION_FIRST_ID
        ),
    }


LAYOUTS = (
    *COCO_LAYOUTS,
    CVAT_LAYOUT,
    *VOC_LAYOUTS,
    IMAGE_FOLDER_LAYOUT,
    *YOLO_LAYOUTS,
    TABLE_LAYOUT,
    SUPERVISELY_LAYOUT,
    LABELME_LAYOUT,
    VIA_LAYOUT,
    DATUMARO_LAYOUT,
    *JSON_LIST_LAYOUTS,
    CSV_LAYOUT,
    COCO_SINGLE_LAYOUT,
)
"""The layouts in the order in which they are tried."""
