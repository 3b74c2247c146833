"""One entrance to every kind of detection data: the built-in set, or a folder in a known layout."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from .coco import coco_split
from .schema import SourceSplit, dataset_from_split, locate
from .splits import with_validation
from .synthetic import synthetic_split

SYNTHETIC_TRAIN_IMAGES = 500
SYNTHETIC_VALIDATION_FIRST_ID = 1_000_000


@dataclass(frozen=True)
class Layout:
    """A way to arrange a data set in a folder: how to recognise it and how to read it."""

    description: str
    detect: Callable[[Path], bool]
    read: Callable[[Path], dict[str, SourceSplit]]


def load_detection_data(data: str | Path, seed: int = 0) -> DatasetDict:
    """Load detection data as a `DatasetDict` with the splits `train` and `validation`, and `test` where there is one.

    Classes get the labels that they have in the training data; the other splits may show fewer of them.

    Args:
        data: "synthetic" or "synthetic:500" for the built-in set (with the number of training images; a fifth as
            many are for validation), or a folder in one of `LAYOUTS`.
        seed: draws the synthetic images; splits data that come without a validation split.

    Raises:
        DataError: no known layout is found (the error lists them), a split shows classes that the training data lack,
            or a record is unusable (see `check_record`).
    """
    splits = source_splits(data, seed)
    names = list(splits["train"].names.values())
    return DatasetDict({name: dataset_from_split(split, names) for name, split in splits.items()})


def source_splits(data: str | Path, seed: int = 0) -> dict[str, SourceSplit]:
    """Read detection data as its files have them, without checking sizes, ids and boxes.

    Args:
        data, seed: as for `load_detection_data`.

    Returns:
        the splits `train`, `validation` and, where there is one, `test`.

    Raises:
        DataError: no known layout is found (the error lists them), or a file cannot be read.
    """
    if isinstance(data, str) and re.fullmatch(r"synthetic(:.*)?", data):
        return _synthetic(data, seed)
    folder = Path(data)
    if not folder.is_dir():
        raise locate('expected a folder of detection data, or the word "synthetic"; there is no such folder', folder)
    for layout in LAYOUTS:
        if layout.detect(folder):
            return with_validation(layout.read(folder), folder, seed)
    looked_for = "".join(f"\n  - {layout.description}" for layout in LAYOUTS)
    found = sorted(path.name for path in folder.iterdir())[:10]
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


def _coco_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return annotation file and image folder of each split of a folder laid out as COCO itself."""
    found = {}
    for parent in (folder, folder / "annotations"):
        for path in sorted(parent.glob("instances_*.json")):
            name = path.stem.removeprefix("instances_")
            split = next((s for s, start in COCO_SPLITS.items() if name.startswith(start)), None)
            images = next((p for p in (folder / name, folder / "images" / name) if p.is_dir()), None)
            if split is None or images is None:
                continue
            if split in found:
                raise locate(f"expected one split '{split}', found {found[split][0].name} and {path.name}", folder)
            found[split] = (path, images)
    return found


COCO_SPLITS = {"train": "train", "validation": "val", "test": "test"}
ROBOFLOW_FILE = "_annotations.coco.json"
ROBOFLOW_FOLDERS = {"train": ("train",), "validation": ("valid", "val"), "test": ("test",)}


def _roboflow_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    found = {}
    for split, names in ROBOFLOW_FOLDERS.items():
        for name in names:
            if (folder / name / ROBOFLOW_FILE).is_file():
                found[split] = (folder / name / ROBOFLOW_FILE, folder / name)
    return found


def _single_file(folder: Path) -> dict[str, tuple[Path, Path]]:
    files = [*folder.glob("*.json"), *folder.glob("annotations/*.json")]
    if len(files) != 1:
        return {}
    images = [path for path in (folder / "images", folder / "train") if path.is_dir()]
    return {"train": (files[0], images[0] if images else folder)}


def _coco_layout(description: str, find: Callable[[Path], dict[str, tuple[Path, Path]]]) -> Layout:
    def read(folder: Path) -> dict[str, SourceSplit]:
        return {split: coco_split(*files) for split, files in find(folder).items()}

    return Layout(description, lambda folder: "train" in find(folder), read)


LAYOUTS = (
    _coco_layout(
        "COCO: instances_train*.json and instances_val*.json, in the folder or in annotations/, "
        "with folders of images of the same names (train2017/ for instances_train2017.json)",
        _coco_files,
    ),
    _coco_layout(f"Roboflow: train/{ROBOFLOW_FILE}, valid/{ROBOFLOW_FILE} beside their images", _roboflow_files),
    _coco_layout("a single COCO json, in the folder or in annotations/, with its images in images/", _single_file),
)
