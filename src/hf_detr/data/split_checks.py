"""Checks every record of a split on its way into a data set."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, concatenate_datasets

from .box_checks import BoxesOutsideError, Changes
from .image_headers import ImageHeader, with_headers
from .problems import boxes_remedy, counted, judged_format, listed
from .record_checks import check_record, with_size
from .schema import (
    DataError,
    RepeatedIdError,
    SourceImage,
    SourceSplit,
    detection_features,
    is_integer,
    locate,
    name_of_image,
)
from .turned_images import as_displayed, drawn_upright, states_stored_size

JUDGED_IMAGES = 2000
"""The format of the boxes is judged by at most this many images of a split."""


@dataclass
class CheckedSplit:
    """The records of a split that can be used, and the problems with the others.

    Attributes:
        rows: the usable records as rows of the schema, by position in the split.
        problems: the errors that say why the others cannot be used, one for each.
        changes: the counts of boxes that were left out of the rows or clipped.
        outside: the counts of what clipping would do to records that are unusable because boxes reach outside.
        turned: the number of images turned by EXIF whose annotations have the stored size, by whether their boxes were
            drawn on the upright picture.
        judged: the first records, without pixels, with the size of the displayed picture.
    """

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    outside: Changes = field(default_factory=Changes)
    turned: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    judged: list[SourceImage] = field(default_factory=list)


def datasets_from_splits(splits: Mapping[str, SourceSplit]) -> DatasetDict:
    """Check every record of all splits and build the data sets, with the labels of the split `train`.

    Raises:
        DataError: see `dataset_from_split`; one error counts the unusable images of all splits.
    """
    train = splits["train"]
    names = list(train.names.values())
    checked = {name: check_split(split, class_labels(split, names)) for name, split in splits.items()}
    _refuse_problems([(splits[name], found) for name, found in checked.items()])
    return DatasetDict(
        {name: _built(splits[name], found, names, train.category_ids) for name, found in checked.items()}
    )


def dataset_from_split(split: SourceSplit, names: Sequence[str] | None = None) -> Dataset:
    """Check every record of a split and build the data set.

    Args:
        split: the images with their objects, in the order that the data set shall have.
        names: the class names in the order of the labels, which must contain the split's own names; by default these.

    Returns:
        a data set with the features of `detection_features`; images given as paths are decoded on access. One warning
        counts the boxes that were left out or clipped.

    Raises:
        DataError: a record is unusable (see `check_record`), the file of its image cannot be read or has another
            size, an image id appears twice, the boxes have another format than stated, the classes are not those
            expected, or there is nothing to read. One error counts the unusable images and names the first.
    """
    checked = check_split(split, class_labels(split, names))
    _refuse_problems([(split, checked)])
    return _built(split, checked, list(split.names.values()) if names is None else list(names), split.category_ids)


def check_split(split: SourceSplit, labels: Mapping[Hashable, int]) -> CheckedSplit:
    """Check every record of a split. The problems are collected and not raised."""
    found = CheckedSplit()
    seen: dict[int, str] = {}
    turned: list[tuple[int, SourceImage, ImageHeader]] = []
    for index, (record, header) in enumerate(with_headers(split.records)):
        try:
            _check_id(record, seen, split.source)
            if isinstance(header, ImageHeader) and states_stored_size(record, header):
                turned.append((index, _without_pixels(record, split), header))
            else:
                _add(found, index, with_size(record, header, split.source), labels, split)
        except DataError as error:
            found.problems.append(error)
    uprights = drawn_upright([(record, header) for _, record, header in turned], split.options)
    for upright, (index, record, header) in zip(uprights, turned, strict=True):
        found.turned[upright] += 1
        try:
            _add(found, index, as_displayed(record, header, upright, split.options), labels, split)
        except DataError as error:
            found.problems.append(error)
    return found


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
        raise locate(f"the classes {unknown} are not among the classes of the training data, {names}", split.source)
    return {key: names.index(name) for key, name in split.names.items()}


def _check_id(record: SourceImage, seen: dict[int, str], source: str | Path) -> None:
    if record.image is None:  # the error about the image that is not declared follows later
        return
    if not is_integer(record.image_id):
        raise locate(f"expected an integer, got {record.image_id!r}", source, field="image_id")
    if record.image_id in seen:
        raise RepeatedIdError(source, record.image_id, seen[record.image_id], record.image)
    seen[record.image_id] = name_of_image(record.image)


def _add(
    found: CheckedSplit, index: int, record: SourceImage, labels: Mapping[Hashable, int], split: SourceSplit
) -> None:
    """Check a record of known size and add it to the rows."""
    if len(found.judged) < JUDGED_IMAGES:
        found.judged.append(replace(record, image=None, instance_mask=None))
    try:
        row, changes = check_record(record, labels, split.source, split.options)
    except BoxesOutsideError as error:
        found.outside += error.clipping
        raise
    if split.pictures is not None:
        del row["image"]
    found.rows[index] = row
    found.changes += changes


def _without_pixels(record: SourceImage, split: SourceSplit) -> SourceImage:
    """Return a record to keep for later, without the pixels that a table holds."""
    return record if split.pictures is None else replace(record, image=record.image.get("path") or "embedded image")


def _refuse_problems(checked: Sequence[tuple[SourceSplit, CheckedSplit]]) -> None:
    """Raise one error for all records of all splits that cannot be used, unless they are to be skipped."""
    problems = [problem for split, found in checked if not split.options.skip_unusable for problem in found.problems]
    repeated = [problem for problem in problems if isinstance(problem, RepeatedIdError)]
    if repeated:  # objects of the other image explain whatever else is wrong
        raise DataError(f"{counted(repeated)}; give each image an id of its own")
    for split, found in checked:
        mistaken = judged_format(found.judged, split.options)
        if mistaken is not None:
            first = f"; {counted(problems)}" if problems else ""
            raise locate(f"{mistaken.evidence}: {mistaken.remedy}{first}", split.source, field="bbox")
    if not problems:
        return
    outside = [found for _, found in checked if any(isinstance(p, BoxesOutsideError) for p in found.problems)]
    if not outside:
        left = "the image" if len(problems) == 1 else "these images"
        raise DataError(f"{counted(problems)}; --skip-unusable leaves {left} out")
    clipping = sum((found.outside for found in outside), Changes())
    records = [record for found in outside for record in found.judged]
    raise DataError(f"{counted(problems)}; {boxes_remedy(records, checked[0][0].options, clipping)}")


def _built(
    split: SourceSplit, checked: CheckedSplit, names: Sequence[str], ids: Mapping[str, int | str] | None
) -> Dataset:
    """Build the data set of the rows that passed, in their order, and warn of what was left out or mended."""
    for remark in _remarks(split, checked):
        warnings.warn(f"{split.source}: {remark}", stacklevel=4)
    kept = sorted(checked.rows)
    rows = [checked.rows[index] for index in kept]
    if not rows:
        raise locate("expected at least one image, found none: the data set is empty", split.source)
    features = detection_features(names, rows[0].get("instance_mask") is not None, ids)
    stored = [] if split.pictures is None else ["image"]
    columns = {name: [row[name] for row in rows] for name in features if name not in stored}
    dataset = Dataset.from_dict(columns, features=Features({name: features[name] for name in columns}))
    if split.pictures is None:
        return dataset
    pictures = split.pictures if len(kept) == len(split.pictures) else split.pictures.select(kept)
    return concatenate_datasets([pictures, dataset], axis=1)


def _remarks(split: SourceSplit, checked: CheckedSplit) -> list[str]:
    changes, turned = checked.changes, checked.turned
    remarks = []
    if checked.problems:
        count = f"{len(checked.problems)} image{'s' * (len(checked.problems) > 1)}"
        remarks.append(f"left out {count} that cannot be used: {listed(checked.problems)}")
    if changes.empty:
        remarks.append(f"left out {changes.empty} box{'es' * (changes.empty > 1)} of zero area")
    if changes.images:
        remarks.append(f"{changes.in_words(done=True)}, because they reached beyond their images")
    if any(turned.values()):
        remarks.append(
            f"{sum(turned.values())} images are turned by their EXIF orientation, and their annotations have the size "
            f"as stored; the boxes of {turned[True]} are taken as drawn on the upright picture, the boxes of "
            f"{turned[False]} were turned with the picture"
        )
    return remarks
