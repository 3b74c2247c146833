"""The one schema of every detection data set, and the check that each record passes on its way into it.

A reader (COCO, Pascal VOC, ...) gives `SourceSplit`s of `SourceImage`s and refuses only what it cannot read: what is
wrong with sizes, ids and boxes stays in the records, for the doctor to report. `dataset_from_split` checks them and
builds the `datasets.Dataset`; training, evaluation and drawing can trust that.
"""

import hashlib
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, concatenate_datasets
from torch.utils.data import Subset

from .box_formats import BOX_FORMATS, BOX_FORMATS_IN_WORDS, BoxFormat

OVERFLOW_TOLERANCE = 2.0
"""Boxes reaching this many pixels or fewer beyond the image are clipped: rounding, not a mistake."""


class DataError(ValueError):
    """A data set cannot be used as it is; the message says where, what was found and what was expected."""


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


@dataclass(frozen=True)
class ReadOptions:
    """What the owner of a data set says about its files, and what may be done to make them usable.

    Attributes:
        box_format: what the four numbers of every box are, for files whose boxes are not what their layout says; None
            takes them as the layout says. One of `BOX_FORMATS`.
        clip_boxes: boxes that reach beyond their image are cut at its edge, and those of which nothing is left are
            dropped; both are counted in a warning. Without it such a box is an error.
        skip_unusable: images and annotations that cannot be used are left out, counted and listed in a warning.
            Without it the first one is an error.
    """

    box_format: BoxFormat | None = None
    clip_boxes: bool = False
    skip_unusable: bool = False

    def __post_init__(self) -> None:
        if self.box_format is not None and self.box_format not in BOX_FORMATS:
            raise DataError(f"expected a box format that is {BOX_FORMATS_IN_WORDS}; got {self.box_format!r}")


@dataclass(frozen=True)
class SourceObject:
    """One object as its file has it: `bbox` is (x, y, width, height) in pixels, `category` the file's own key.

    Nothing is checked yet: a field may hold whatever the file does.
    """

    id: int
    bbox: Sequence[float]
    category: Hashable
    area: float | None = None
    iscrowd: int = 0


@dataclass(frozen=True)
class SourceImage:
    """One image as its file has it; nothing is checked yet.

    Attributes:
        image: a path or what `datasets.Image` encodes; None for objects of an image that is not declared.
        image_id: an integer, unless the file has something else.
        width, height: in pixels, as displayed; None where neither the annotations nor the image tell.
        objects: what the image shows.
        instance_mask: see `detection_features`.
        annotation_file: the file of this image's annotations, where each image has its own.
    """

    image: Any
    image_id: int
    width: int | None
    height: int | None
    objects: Sequence[SourceObject] = field(default_factory=tuple)
    instance_mask: Any = None
    annotation_file: Path | None = None


@dataclass(frozen=True)
class SourceSplit:
    """A split as its files have it, before the checks.

    Attributes:
        records: the images in their order; can be iterated over again and again.
        names: the class names by the files' own keys, in the order of the labels 0..K-1.
        source: the file or folder that errors name.
        pictures: the images of the records, a data set of one column `image`, where they are stored in a table: the
            data set that is built refers to them, so that they need not fit into memory.
        options: how the records are to be taken; `source_splits` sets them, a reader need not.
    """

    records: Sequence[SourceImage]
    names: Mapping[Hashable, str]
    source: Path | str
    pictures: Dataset | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def select(self, indices: Sequence[int]) -> "SourceSplit":
        """Return the split of some of the records."""
        pictures = None if self.pictures is None else self.pictures.select(indices)
        return replace(self, records=Subset(self.records, indices), pictures=pictures)


def detection_features(category_names: Sequence[str], instance_masks: bool = False) -> Features:
    """Return the features of a detection data set.

    `objects` holds parallel lists; `bbox` is (x, y, width, height) in absolute pixels of the image as displayed
    (its EXIF orientation applied), float32; `category` runs from 0 to K-1. With `instance_masks` there is also an
    `instance_mask`, an 8- or 16-bit PNG in which the value i + 1 marks the i-th object and 0 the background.
    """
    features = {
        "image": Image(),
        "image_id": Value("int64"),
        "width": Value("int64"),
        "height": Value("int64"),
        "objects": {
            "id": List(Value("int64")),
            "bbox": List(List(Value("float32"), length=4)),
            "category": List(ClassLabel(names=list(category_names))),
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


def check_record(record: SourceImage, labels: Mapping[Hashable, int], source: str | Path) -> tuple[dict, int]:
    """Check one record and return it as a row of the schema, with the number of zero-area boxes left out.

    Args:
        record: the image and its objects as the file has them.
        labels: the declared categories, from the file's key to the label 0..K-1.
        source: the file that errors name.

    Raises:
        DataError: a size, box or area is not a finite number in range, a box lies more than two pixels outside the
            image, or a category is not declared.
    """
    if record.image is None:
        annotation_id = record.objects[0].id if record.objects else None
        raise locate("no image of this id is declared", source, record.image_id, annotation_id, "image_id")
    if isinstance(record.image, Path) and not record.image.is_file():
        raise locate("the image file does not exist", record.image, record.image_id)
    if record.width is None or record.height is None:
        place = record.image if isinstance(record.image, Path) else source
        raise locate("expected an image, but its header cannot be read to learn its size", place, record.image_id)
    source = record.annotation_file or source
    for name, size in (("width", record.width), ("height", record.height)):
        if not _is_integer(size) or size <= 0:
            raise locate(f"expected a positive integer, got {size!r}", source, record.image_id, field=name)
    kept, overflowing = [], []
    for item in record.objects:
        box = _checked_box(item, record, source)
        if item.category not in labels:
            raise locate(
                f"{item.category!r} is not declared; the declared categories are {list(labels)}",
                source,
                record.image_id,
                item.id,
                "category",
            )
        x, y, width, height = box
        overflow = max(-x, -y, x + width - record.width, y + height - record.height)
        if overflow > OVERFLOW_TOLERANCE:
            overflowing.append((item, box))
        else:
            kept.append((item, _clipped(box, record.width, record.height)))
    if overflowing:
        raise _outside_error(overflowing, record, source)
    solid = [(item, box) for item, box in kept if box[2] > 0 and box[3] > 0]
    empty = len(kept) - len(solid)
    if empty and record.instance_mask is not None:
        raise locate("an object with an instance mask has a box of zero area", source, record.image_id, field="bbox")
    return _row(record, solid, labels, source), empty


def dataset_from_split(split: SourceSplit, names: Sequence[str] | None = None) -> Dataset:
    """Check every record of a split and build the data set.

    Args:
        split: the images with their objects, in the order the data set shall have.
        names: the class names in the order of the labels, among which the split's own must be; these by default.

    Returns:
        a data set with the features of `detection_features`; images given as paths are decoded on access. Boxes of
        zero area are left out, with one warning that counts them.

    Raises:
        DataError: a record is unusable (see `check_record`), an image id appears twice, the classes are not those
            expected, or there is nothing to read.
    """
    labels = class_labels(split, names)
    rows, seen, empty = [], set(), 0
    for record in split.records:
        if not _is_integer(record.image_id):
            raise locate(f"expected an integer, got {record.image_id!r}", split.source, field="image_id")
        row, dropped = check_record(record, labels, split.source)
        if record.image_id in seen:
            raise locate("this image id appears more than once", split.source, record.image_id)
        seen.add(record.image_id)
        if split.pictures is not None:
            del row["image"]
        rows.append(row)
        empty += dropped
    if not rows:
        raise locate("expected at least one image, found none: the data set is empty", split.source)
    if empty:
        warnings.warn(f"{split.source}: left out {empty} box{'es' * (empty > 1)} of zero area", stacklevel=2)
    masks = rows[0].get("instance_mask") is not None
    features = detection_features(names or list(split.names.values()), masks)
    stored = [] if split.pictures is None else ["image"]
    columns = {name: [row[name] for row in rows] for name in features if name not in stored}
    dataset = Dataset.from_dict(columns, features=Features({name: features[name] for name in columns}))
    return concatenate_datasets([split.pictures, dataset], axis=1) if stored else dataset


def class_labels(split: SourceSplit, names: Sequence[str] | None = None) -> dict[Hashable, int]:
    """Return the label 0..K-1 of each of a split's own category keys, in the order of `names` where they are given.

    Raises:
        DataError: the split declares no class, the same name twice, or one that is not among `names`.
    """
    declared = list(split.names.values())
    if not declared:
        raise locate("expected at least one category, found none", split.source, field="categories")
    repeated = sorted({name for name in declared if declared.count(name) > 1})
    if repeated:
        raise locate(f"category names must be distinct, but {repeated} appear more than once", split.source)
    names = declared if names is None else list(names)
    unknown = [name for name in declared if name not in names]
    if unknown:
        raise locate(f"the classes {unknown} are not among those of the training data, {names}", split.source)
    return {key: names.index(name) for key, name in split.names.items()}


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


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _checked_box(item: SourceObject, record: SourceImage, source: str | Path) -> tuple[float, float, float, float]:
    def error(problem: str, name: str) -> DataError:
        return locate(problem, source, record.image_id, item.id, name)

    box = item.bbox
    if not _is_integer(item.id):
        raise error(f"expected an integer, got {item.id!r}", "id")
    if isinstance(box, str) or not isinstance(box, Sequence | np.ndarray) or len(box) != 4:
        raise error(f"expected four numbers (x, y, width, height), got {box!r}", "bbox")
    if not all(_is_finite(value) for value in box):
        raise error(f"expected finite numbers (x, y, width, height), got {list(box)}", "bbox")
    if box[2] < 0 or box[3] < 0:
        raise error(f"expected (x, y, width, height) without a negative size, got {list(box)}", "bbox")
    if item.area is not None and (not _is_finite(item.area) or item.area < 0):
        raise error(f"expected a finite number that is not negative, got {item.area!r}", "area")
    if item.iscrowd not in (0, 1):
        raise error(f"expected 0 or 1, got {item.iscrowd!r}", "iscrowd")
    x, y, width, height = (float(value) for value in box)
    return x, y, width, height


def _clipped(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return left, top, right - left, bottom - top


def _outside_error(overflowing: list, record: SourceImage, source: str | Path) -> DataError:
    item, box = overflowing[0]
    problem = (
        f"expected (x, y, width, height) inside the image of {record.width}x{record.height} pixels, got {list(box)}"
    )
    as_corners_fits = all(
        0 <= x < right <= record.width and 0 <= y < bottom <= record.height for _, (x, y, right, bottom) in overflowing
    )
    if as_corners_fits:
        problem += "; this looks like xyxy, that is (left, top, right, bottom): convert it to (x, y, width, height)"
    return locate(problem, source, record.image_id, item.id, "bbox")


def _row(record: SourceImage, objects: list, labels: Mapping[Hashable, int], source: str | Path) -> dict:
    image = str(record.image) if isinstance(record.image, Path) else record.image
    row = {
        "image": image,
        "image_id": int(record.image_id),
        "width": int(record.width),
        "height": int(record.height),
        "objects": {
            "id": [item.id for item, _ in objects],
            "bbox": [list(box) for _, box in objects],
            "category": [labels[item.category] for item, _ in objects],
            "area": [box[2] * box[3] if item.area is None else float(item.area) for item, box in objects],
            "iscrowd": [int(item.iscrowd) for item, _ in objects],
        },
    }
    if record.instance_mask is not None:
        row["instance_mask"] = record.instance_mask
    return row
