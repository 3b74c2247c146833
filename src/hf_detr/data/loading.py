"""One entrance to every kind of detection data: the built-in set, or a folder in a known layout."""

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from .coco import read_coco
from .schema import category_names, locate
from .synthetic import make_synthetic_dataset

SYNTHETIC_TRAIN_IMAGES = 500
SYNTHETIC_VALIDATION_FIRST_ID = 1_000_000
SPLIT_EVERY = 5
"""Without a validation split, every fifth image becomes one."""


@dataclass(frozen=True)
class Layout:
    """A way to arrange a data set in a folder: how to recognise it and how to read it."""

    description: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, int], DatasetDict]


def load_detection_data(data: str | Path, seed: int = 0) -> DatasetDict:
    """Load detection data as a `DatasetDict` with the splits `train` and `validation`, and `test` where there is one.

    Args:
        data: "synthetic" or "synthetic:500" for the built-in set (with the number of training images; a fifth as
            many are for validation), or a folder in one of `LAYOUTS`.
        seed: draws the synthetic images; splits data that come without a validation split.

    Raises:
        DataError: no known layout is found (the error lists them), the splits disagree about their classes, or a
            record is unusable (see `check_record`).
    """
    if isinstance(data, str) and re.fullmatch(r"synthetic(:.*)?", data):
        return _synthetic(data, seed)
    folder = Path(data)
    if not folder.is_dir():
        raise locate('expected a folder of detection data, or the word "synthetic"; there is no such folder', folder)
    for layout in LAYOUTS:
        if layout.detect(folder):
            return _same_classes(layout.read(folder, seed), folder)
    looked_for = "".join(f"\n  - {layout.description}" for layout in LAYOUTS)
    found = sorted(path.name for path in folder.iterdir())[:10]
    raise locate(f"no known layout found; looked for{looked_for}\nThe folder starts with {found}", folder)


def split_off_validation(dataset: Dataset, seed: int = 0) -> DatasetDict:
    """Split a data set 80/20 so that every class, the rare ones first, is spread over both parts.

    Images are ordered by the rarest class they show, at random within it, and every fifth goes to validation.

    Raises:
        DataError: there are fewer than two images.
    """
    if len(dataset) < 2:
        raise locate("expected at least two images to split into train and validation")
    labels = [set(objects["category"]) for objects in dataset["objects"]]
    frequency = Counter(label for present in labels for label in present)
    rarest = [min((frequency[label], label) for label in present) if present else (0, -1) for present in labels]
    order = np.random.default_rng(seed).permutation(len(dataset))
    order = sorted(order.tolist(), key=lambda index: rarest[index])
    validation = sorted(order[::SPLIT_EVERY])
    train = sorted(set(order) - set(validation))
    return DatasetDict(train=dataset.select(train), validation=dataset.select(validation))


def _synthetic(data: str, seed: int) -> DatasetDict:
    _, _, count = data.partition(":")
    if ":" in data and (not count.isascii() or not count.isdigit() or int(count) < 1):
        raise locate(f'expected "synthetic" or "synthetic:<number of training images>", got {data!r}')
    num_images = int(count) if count else SYNTHETIC_TRAIN_IMAGES
    return DatasetDict(
        train=make_synthetic_dataset(num_images, seed=seed),
        validation=make_synthetic_dataset(
            max(1, num_images // 5), seed=seed, first_image_id=SYNTHETIC_VALIDATION_FIRST_ID
        ),
    )


def _same_classes(splits: DatasetDict, folder: Path) -> DatasetDict:
    names = {split: category_names(dataset) for split, dataset in splits.items()}
    for split, found in names.items():
        if found != names["train"]:
            raise locate(f"the classes of '{split}' are {found}, but those of 'train' are {names['train']}", folder)
    return splits


def _with_validation(splits: DatasetDict, folder: Path, seed: int) -> DatasetDict:
    if "validation" in splits:
        return splits
    warnings.warn(
        f"{folder}: no validation split found; every fifth image of the training data becomes one (seed {seed})",
        stacklevel=2,
    )
    return DatasetDict({**splits, **split_off_validation(splits["train"], seed)})


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
    def read(folder: Path, seed: int) -> DatasetDict:
        splits = DatasetDict({split: read_coco(*files) for split, files in find(folder).items()})
        return _with_validation(splits, folder, seed)

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
