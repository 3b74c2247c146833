"""A split after everything in it was read once: records without pixels, what the pixels said, boxes as arrays."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..data.schema import DataError, SourceImage, SourceObject, SourceSplit, check_record
from .findings import Place
from .image_facts import ImageFacts

NOT_DECLARED = -1


@dataclass(frozen=True)
class Boxes:
    """The objects of a split in parallel arrays.

    Attributes:
        image: (N,) int64, the position of the object's image in the split.
        item: the objects themselves.
        bbox: (N, 4) float64, (x, y, width, height) in pixels; NaN where there are not four numbers.
        image_size: (N, 2) float64, (width, height) of the object's image; NaN where annotation and file disagree or
            neither tells: nothing can be said about its boxes then.
        label: (N,) int64, the class; `NOT_DECLARED` where the category is not.
        crowd: (N,) bool.
    """

    image: np.ndarray
    item: Sequence[SourceObject]
    bbox: np.ndarray
    image_size: np.ndarray
    label: np.ndarray
    crowd: np.ndarray

    @cached_property
    def finite(self) -> np.ndarray:
        """(N,) bool: four finite numbers, in an image of known size."""
        return np.isfinite(self.bbox).all(axis=1) & (self.image_size > 0).all(axis=1)

    @cached_property
    def solid(self) -> np.ndarray:
        """(N,) bool: finite, and of positive width and height."""
        return self.finite & (self.bbox[:, 2:] > 0).all(axis=1)

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class ExaminedSplit:
    """A split and what was read of it.

    Attributes:
        name: "train", "validation" or "test".
        source, names: as in `SourceSplit`.
        records: its images in their order, with paths, but without pixels.
        facts: what the pixels of each said.
        refusals: why loading refuses a record, by its position; the first reason of each.
        boxes: all objects, in the order of the images.
    """

    name: str
    source: Path | str
    names: Mapping[Hashable, str]
    records: Sequence[SourceImage]
    facts: Sequence[ImageFacts]
    refusals: Mapping[int, str]
    boxes: Boxes

    def place(self, image: int, detail: str = "", item: SourceObject | None = None) -> Place:
        """Return the place of an image of this split, or of an object in it."""
        record = self.records[image]
        file = record.image if item is None else record.annotation_file or record.image
        return Place(
            detail=detail,
            split=self.name,
            file=str(file or self.source),
            image_id=record.image_id,
            annotation_id=None if item is None else item.id,
        )

    def box_place(self, index: int, detail: str = "") -> Place:
        """Return the place of an object, by its position in `boxes`."""
        return self.place(int(self.boxes.image[index]), detail, self.boxes.item[index])


def examined_split(name: str, split: SourceSplit, read: Iterable[tuple[SourceImage, ImageFacts]]) -> ExaminedSplit:
    """Collect the records of a split, in their order, and what was read of their images."""
    records, facts, refusals = [], [], {}
    labels = {key: label for label, key in enumerate(split.names)}
    for index, (record, fact) in enumerate(read):
        try:
            check_record(record, labels, split.source)
        except DataError as error:
            refusals[index] = str(error)
        records.append(replace(record, image=_path(record.image), instance_mask=None))
        facts.append(fact)
    return ExaminedSplit(name, split.source, split.names, records, facts, refusals, _boxes(records, facts, labels))


def size_agrees(record: SourceImage, fact: ImageFacts) -> bool:
    """Whether the annotation does not contradict the image file about its size."""
    return fact.size is None or record.width is None or fact.size == (record.width, record.height)


def _path(image: Any) -> str | None:
    if isinstance(image, dict):
        image = image.get("path")
    return str(image) if isinstance(image, str | Path) else None


def _boxes(records: Sequence[SourceImage], facts: Sequence[ImageFacts], labels: Mapping[Hashable, int]) -> Boxes:
    items = [item for record in records for item in record.objects]
    counts = [len(record.objects) for record in records]
    sizes = [
        as_numbers((record.width, record.height) if size_agrees(record, fact) else (), 2)
        for record, fact in zip(records, facts, strict=True)
    ]
    image = np.repeat(np.arange(len(records)), counts)
    return Boxes(
        image=image,
        item=items,
        bbox=np.array([as_numbers(item.bbox, 4) for item in items]).reshape(-1, 4),
        image_size=np.array(sizes).reshape(-1, 2)[image],
        label=np.array([labels.get(item.category, NOT_DECLARED) for item in items], dtype=np.int64),
        crowd=np.array([item.iscrowd == 1 for item in items], dtype=bool),
    )


def as_numbers(values: Any, count: int) -> list[float]:
    """Return so many numbers as floats, or NaNs where they are something else."""
    try:
        numbers = [] if isinstance(values, str) else [float(value) for value in values if not isinstance(value, str)]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    return numbers if len(numbers) == count else [float("nan")] * count
