"""The one schema of every detection data set, and the records that readers make before they are checked.

A reader (COCO, Pascal VOC, ...) gives `SourceSplit`s of `SourceImage`s and refuses only what it cannot read: what is
wrong with sizes, ids and boxes stays in the records, for the doctor to report. `checks.py` checks them and builds the
`datasets.Dataset`; training, evaluation and drawing can trust that.
"""

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from .box_formats import BoxFormat
from .options import ReadOptions

CATEGORY_IDS = "category_ids "
"""The `id` of the feature ClassLabel starts with this word where it holds the category ids of the files."""


class DataError(ValueError):
    """A data set cannot be used as it is. The message says where, what was found and what was expected."""


def locate(
    problem: str,
    source: str | Path | None = None,
    image_id: Any = None,
    annotation_id: Any = None,
    field: str | None = None,
) -> DataError:
    """Return a `DataError` whose message names the file, image id, annotation id and field where they are known."""
    places = [
        f"{source}" if source is not None else None,
        f"image id {image_id}" if image_id is not None else None,
        f"annotation id {annotation_id}" if annotation_id is not None else None,
        f"field '{field}'" if field is not None else None,
    ]
    where = ", ".join(place for place in places if place)
    return DataError(f"{where}: {problem}" if where else problem)


class RepeatedIdError(DataError):
    """Two images of a split have the same id, so that nobody knows whose objects are whose."""

    def __init__(self, source: str | Path, image_id: Any, first: Any, second: Any):
        files = ", ".join(name_of_image(image) for image in (first, second))
        super().__init__(f"{source}, images: id {image_id} is declared twice ({files})")


def name_of_image(image: Any) -> str:
    """Return the file of an image in a record, as errors name it."""
    path = image.get("path") if isinstance(image, Mapping) else image
    return str(path) if isinstance(path, str | Path) else "embedded image"


@dataclass(frozen=True)
class SourceObject:
    """One object as its file has it. Nothing is checked yet: a field may hold whatever the file does.

    Attributes:
        id: a number that tells the objects of an image apart.
        bbox: four numbers, as the file has them.
        category: the file's own key of the class.
        area: the area in square pixels; None where the file does not tell.
        iscrowd: 1 for a region of many objects, else 0.
        box_format: the format of the four numbers by the layout of the file.
        from_outline: whether the reader computed the box from a polygon or mask; `ReadOptions.box_format` speaks of
            numbers that stand in the file and leaves such a box alone.
    """

    id: Any
    bbox: Any
    category: Hashable
    area: Any = None
    iscrowd: Any = 0
    box_format: BoxFormat = "xywh"
    from_outline: bool = False

    def format_under(self, options: ReadOptions) -> BoxFormat:
        """Return what the four numbers of the box are to be taken for."""
        return self.box_format if self.from_outline or options.box_format is None else options.box_format


@dataclass(frozen=True)
class SourceImage:
    """One image as its file has it; nothing is checked yet.

    Attributes:
        image: a path or what `datasets.Image` encodes; None for objects of an image that is not declared.
        image_id: an integer, unless the file has something else.
        width, height: the size in pixels that the annotations state; None where they state none, and the image file
            tells.
        objects: the objects that the image shows.
        instance_mask: see `detection_features`.
        annotation_file: the file of this image's annotations, where each image has its own.
    """

    image: Any
    image_id: Any
    width: Any
    height: Any
    objects: Sequence[SourceObject] = field(default_factory=tuple)
    instance_mask: Any = None
    annotation_file: Path | None = None


class LazyRecords(Sequence[SourceImage]):
    """Records that are made when they are asked for; a subclass says how many there are, and how each is made."""

    def record(self, index: int) -> SourceImage:
        """Make the record at an index, as of a list."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> SourceImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[SourceImage]: ...
    def __getitem__(self, index: int | slice) -> SourceImage | list[SourceImage]:
        if isinstance(index, slice):
            return [self.record(each) for each in range(*index.indices(len(self)))]
        return self.record(index)


@dataclass(frozen=True)
class SelectedRecords(LazyRecords):
    """Some of many records, by their indices."""

    records: Sequence[SourceImage]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def record(self, index: int) -> SourceImage:
        """Return the record at an index."""
        return self.records[self.indices[index]]


@dataclass(frozen=True)
class SourceSplit:
    """A split as its files have it, before the checks.

    Attributes:
        records: the images in their order, over which one can iterate again and again.
        names: the class names by the files' own keys, in the order of the labels 0..K-1.
        source: the file or folder that errors name.
        pictures: the images of the records as a data set of one column `image`, where a table stores them. The data
            set that is built refers to them, so that they need not fit into memory.
        options: how the records are to be taken; `source_splits` sets them, a reader need not.
        stated_ids: the id of each class, by name, of files that have labels for keys and state the ids beside them.
    """

    records: Sequence[SourceImage]
    names: Mapping[Any, str]
    source: Path | str
    pictures: Dataset | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    stated_ids: Mapping[str, int | str] | None = None

    @property
    def category_ids(self) -> dict[str, int | str] | None:
        """The id that the files give each class, by name, or None where they know classes by label or name only."""
        if self.stated_ids is not None:
            return dict(self.stated_ids)
        ids = {name: key for key, name in self.names.items() if isinstance(key, int | str)}
        told = list(ids.values()) != list(range(len(self.names))) and any(key != name for name, key in ids.items())
        return ids if told and len(ids) == len(self.names) else None

    def select(self, indices: Sequence[int]) -> "SourceSplit":
        """Return the split of some of the records."""
        pictures = None if self.pictures is None else self.pictures.select(indices)
        return replace(self, records=SelectedRecords(self.records, indices), pictures=pictures)


def detection_features(
    category_names: Sequence[str],
    instance_masks: bool = False,
    category_ids: Mapping[str, int | str] | None = None,
) -> Features:
    """Return the features of a detection data set.

    `objects` holds parallel lists; `bbox` is (x, y, width, height) in absolute pixels of the image as displayed
    (its EXIF orientation applied), float32; `category` runs from 0 to K-1. With `instance_masks` there is also an
    `instance_mask`, an 8- or 16-bit PNG in which the value i + 1 marks the i-th object and 0 the background. The
    category ids that the files give the classes stand in the `id` of ClassLabel; see `category_ids`.
    """
    ids = None if category_ids is None else CATEGORY_IDS + json.dumps(dict(category_ids))
    features = {
        "image": Image(),
        "image_id": Value("int64"),
        "width": Value("int64"),
        "height": Value("int64"),
        "objects": {
            "id": List(Value("int64")),
            "bbox": List(List(Value("float32"), length=4)),
            "category": List(ClassLabel(names=list(category_names), id=ids)),
            "area": List(Value("float32")),
            "iscrowd": List(Value("int64")),
        },
    }
    if instance_masks:
        features["instance_mask"] = Image()
    return Features(features)


def category_names(dataset: Dataset) -> list[str]:
    """Return the class names of a data set in the schema, in the order of their labels 0..K-1."""
    return list(dataset.features["objects"]["category"].feature.names)


def category_ids(dataset: Dataset) -> dict[str, int | str] | None:
    """Return the id that the files of a data set give each class, by name, or None where there are labels only.

    This is what `HfDetrConfig.category_ids` takes.
    """
    return ids_in(dataset.features["objects"]["category"].feature)


def ids_in(categories: ClassLabel) -> dict[str, int | str] | None:
    """Return the category ids that the `id` of a feature holds, by name; None where it holds something else."""
    kept = categories.id or ""
    return json.loads(kept.removeprefix(CATEGORY_IDS)) if kept.startswith(CATEGORY_IDS) else None


def data_fingerprint(dataset: Dataset | DatasetDict) -> str:
    """Return a 12-digit hexadecimal hash of the image ids, boxes, labels and class names (not of the pixels)."""
    splits = dataset if isinstance(dataset, DatasetDict) else {"": dataset}
    digest = hashlib.sha256()
    for split, rows in sorted(splits.items()):
        digest.update(repr((split, category_names(rows))).encode())
        for row in rows.select_columns(["image_id", "width", "height", "objects"]):
            digest.update(repr((row["image_id"], row["width"], row["height"], row["objects"]["category"])).encode())
            digest.update(np.asarray(row["objects"]["bbox"], dtype="<f4").tobytes())
    return digest.hexdigest()[:12]


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer, Python's or NumPy's, and not a truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
