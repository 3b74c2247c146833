"""Holds a split after everything in it was read once: records without pixels, facts about images, boxes as arrays."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..data.box_formats import BOX_FORMATS, to_xywh
from ..data.options import ReadOptions
from ..data.record_checks import check_record, with_size
from ..data.schema import DataError, SourceImage, SourceObject, SourceSplit
from ..data.turned_images import as_displayed, drawn_upright, states_stored_size
from .findings import Place
from .image_facts import ImageFacts

NOT_DECLARED = -1


@dataclass(frozen=True)
class Boxes:
    """The objects of a split in parallel arrays.

    Attributes:
        image: (N,) int64, the position of the object's image in the split.
        item: the objects themselves.
        numbers: (N, 4) float64, the four numbers as the file has them; NaN where there are not four.
        box_format: (N,) str, the format in which the numbers are read.
        bbox: (N, 4) float64, (x, y, width, height) in pixels; NaN where that cannot be known.
        image_size: (N, 2) float64, (width, height) of the object's image. It is NaN where annotation and file disagree
            or neither tells, because nothing can be said about its boxes then.
        label: (N,) int64, the class; `NOT_DECLARED` where the category is not declared.
        crowd: (N,) bool.
    """

    image: np.ndarray
    item: Sequence[SourceObject]
    numbers: np.ndarray
    box_format: np.ndarray
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
    """A split, and everything that was read of it.

    Attributes:
        name: "train", "validation" or "test".
        source, names: see `SourceSplit`.
        options: the owner's statements on how the files are to be taken.
        records: its images in their order, with paths, but without pixels, and with the size as displayed where
            annotations and file allow it.
        facts: the facts that were found in the file of each image.
        turned: the positions of the images turned by EXIF whose annotations have the size as stored, each with whether
            its boxes are taken as drawn on the displayed picture.
        refusals: the first reason why loading refuses a record, by the position of the record.
        boxes: all objects, in the order of the images.
    """

    name: str
    source: Path | str
    names: Mapping[Hashable, str]
    options: ReadOptions
    records: Sequence[SourceImage]
    facts: Sequence[ImageFacts]
    turned: Mapping[int, bool]
    refusals: Mapping[int, str]
    boxes: Boxes

    @cached_property
    def left_out(self) -> frozenset[int]:
        """The positions of the images that loading refuses, and leaves out with `ReadOptions.skip_unusable`.

        Damaged pixels behind a good header are not among them, because loading reads headers only.
        """
        first = {record.image_id: index for index, record in reversed(list(enumerate(self.records)))}
        repeated = {index for index, record in enumerate(self.records) if first[record.image_id] != index}
        no_header = {index for index, fact in enumerate(self.facts) if fact.problem and fact.header is None}
        return frozenset({*self.refusals, *repeated, *no_header})

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
    records, facts = [], []
    for record, fact in read:
        records.append(replace(record, image=_path(record.image)))
        facts.append(fact)
    turned = {
        index: (record, fact.header)
        for index, (record, fact) in enumerate(zip(records, facts, strict=True))
        if fact.header is not None and states_stored_size(record, fact.header)
    }
    uprights = dict(zip(turned, drawn_upright(list(turned.values()), split.options), strict=True))
    for index, upright in uprights.items():
        records[index] = as_displayed(*turned[index], upright, split.options)
    labels, refusals = {key: label for label, key in enumerate(split.names)}, {}
    for index, (record, fact) in enumerate(zip(records, facts, strict=True)):
        try:
            records[index] = with_size(record, fact.header, split.source)
            checked = records[index]
            if checked.image is None and fact.problem_kind != "undeclared_image":
                checked = replace(checked, image="embedded image")
            check_record(checked, labels, split.source, split.options)
        except DataError as error:
            refusals[index] = str(error)
        records[index] = replace(records[index], instance_mask=None)
    boxes = _boxes(records, facts, labels, split.options)
    return ExaminedSplit(name, split.source, split.names, split.options, records, facts, uprights, refusals, boxes)


def size_agrees(record: SourceImage, fact: ImageFacts) -> bool:
    """Return whether the annotation agrees with the image file about its size, or does not state it."""
    return fact.size is None or record.width is None or fact.size == (record.width, record.height)


def _path(image: Any) -> str | None:
    if isinstance(image, dict):
        image = image.get("path")
    return str(image) if isinstance(image, str | Path) else None


def _boxes(
    records: Sequence[SourceImage],
    facts: Sequence[ImageFacts],
    labels: Mapping[Hashable, int],
    options: ReadOptions,
) -> Boxes:
    items = [item for record in records for item in record.objects]
    counts = [len(record.objects) for record in records]
    sizes = [
        as_numbers((record.width, record.height) if size_agrees(record, fact) else (), 2)
        for record, fact in zip(records, facts, strict=True)
    ]
    image = np.repeat(np.arange(len(records)), counts)
    numbers = np.array([as_numbers(item.bbox, 4) for item in items]).reshape(-1, 4)
    box_format = np.array([item.format_under(options) for item in items], dtype=object)
    image_size = np.array(sizes).reshape(-1, 2)[image]
    return Boxes(
        image=image,
        item=items,
        numbers=numbers,
        box_format=box_format,
        bbox=_in_pixels(numbers, box_format, image_size),
        image_size=image_size,
        label=np.array([labels.get(item.category, NOT_DECLARED) for item in items], dtype=np.int64),
        crowd=np.array([item.iscrowd == 1 for item in items], dtype=bool),
    )


def _in_pixels(numbers: np.ndarray, box_format: np.ndarray, image_size: np.ndarray) -> np.ndarray:
    bbox = np.full_like(numbers, np.nan)
    for name in BOX_FORMATS:
        chosen = box_format == name
        bbox[chosen] = np.stack(to_xywh(numbers[chosen].T, name, *image_size[chosen].T), axis=1)
    return bbox


def as_numbers(values: Any, count: int) -> list[float]:
    """Return so many numbers as floats, or NaNs where they are something else."""
    try:
        numbers = [] if isinstance(values, str) else [float(value) for value in values if not isinstance(value, str)]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    return numbers if len(numbers) == count else [float("nan")] * count
