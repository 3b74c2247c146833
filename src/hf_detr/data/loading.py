"""One entrance to every kind of detection data: the built-in set, or a folder in a known layout."""

import re
from dataclasses import replace
from pathlib import Path

from datasets import DatasetDict

from .readers.coco_layouts import COCO_LAYOUTS, COCO_SINGLE_LAYOUT
from .readers.image_folder import IMAGE_FOLDER_LAYOUT
from .readers.layouts import Layout
from .readers.tables import HUB_NAME, TABLE_LAYOUT, hub_tables, table_splits
from .readers.voc import VOC_LAYOUTS
from .readers.yolo import YOLO_LAYOUTS
from .schema import ReadOptions, SourceSplit, locate
from .split_checks import datasets_from_splits
from .splits import with_validation
from .synthetic import synthetic_split

SYNTHETIC_TRAIN_IMAGES = 500
SYNTHETIC_VALIDATION_FIRST_ID = 1_000_000
NO_FOLDER = (
    'expected a folder of detection data, a data set on the Hub as "owner/name", or the word "synthetic"; there is no '
    "such folder"
)


def load_detection_data(data: str | Path, seed: int = 0, options: ReadOptions | None = None) -> DatasetDict:
    """Load detection data as a `DatasetDict` with the splits `train` and `validation`, and `test` where there is one.

    Classes get the labels that they have in the training data; the other splits may show fewer of them.

    Args:
        data: "synthetic" or "synthetic:500" for the built-in set (with the number of training images; a fifth as
            many are for validation), a folder in one of `LAYOUTS`, or "owner/name" of a data set on the Hub
            ("owner/name:subset" where it has several).
        seed: draws the synthetic images; splits data that come without a validation split.
        options: how the files are to be taken where they are not as their layout says; the defaults of `ReadOptions`.

    Raises:
        DataError: no known layout is found (the error lists them), a split shows classes that the training data lack,
            or a record is unusable (see `dataset_from_split`).
    """
    return datasets_from_splits(source_splits(data, seed, options))


def source_splits(data: str | Path, seed: int = 0, options: ReadOptions | None = None) -> dict[str, SourceSplit]:
    """Read detection data as its files have them, without checking sizes, ids and boxes.

    Args:
        data, seed, options: as for `load_detection_data`.

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
    folder = Path(data)
    if not folder.is_dir():
        if not isinstance(data, str) or folder.exists() or not HUB_NAME.fullmatch(data):
            raise locate(NO_FOLDER, folder)
        return table_splits(hub_tables(data), data)
    return layout_of(folder).read(folder)


def layout_of(folder: Path) -> Layout:
    """Return the layout in which a folder is.

    Raises:
        DataError: in none that is known; the error lists them.
    """
    for layout in LAYOUTS:
        if layout.detect(folder):
            return layout
    looked_for = "".join(f"\n  - {layout.description}" for layout in LAYOUTS)
    found = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())[:10]
    raise locate(f"no known layout found; looked for{looked_for}\nThe folder starts with {found}", folder)


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


LAYOUTS = (*COCO_LAYOUTS, *VOC_LAYOUTS, IMAGE_FOLDER_LAYOUT, *YOLO_LAYOUTS, TABLE_LAYOUT, COCO_SINGLE_LAYOUT)
