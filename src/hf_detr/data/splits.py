"""Divides images into training and validation, where the data have no validation split."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image

from .look_alikes import Fingerprint, fingerprint_of, groups_of_look_alikes, image_bytes
from .schema import DataError, SourceImage, SourceSplit, locate
from .threads import in_threads

SHARE = 0.2
"""Without a validation split, this share of the training images becomes one."""
LEAST_SHARE = 0.1
"""Where less than this share can go to validation, a group of images that look alike is taken apart."""
MOST_SHARE = 0.5
"""No image moves to the validation split, for a group or for a class, if the split would get a larger share than
this."""


@dataclass(frozen=True)
class Halves:
    """The positions of the images for training and for validation, and how look-alikes were treated.

    Attributes:
        train, validation: the positions, in order.
        kept_together: the number of groups of images that look alike that are whole in one of the two.
        taken_apart: the number of images in groups that are not whole.
    """

    train: Sequence[int]
    validation: Sequence[int]
    kept_together: int
    taken_apart: int


def with_validation(splits: Mapping[str, SourceSplit], source: str | Path, seed: int = 0) -> dict[str, SourceSplit]:
    """Return the splits, among them `train` and `validation`; a warning says how a missing one was made.

    A missing or empty validation split is the `test` split where there is one, else a part of the training data (see
    `split_off_validation`).

    Raises:
        DataError: there is no training split, or too little to split.
    """
    if "train" not in splits:
        raise locate(f"expected training data, found only the splits {list(splits)}", source)
    found = {name: split for name, split in splits.items() if name == "train" or len(split.records)}
    if "validation" in found:
        return found
    missing = "the validation split is empty" if "validation" in splits else "no validation split found"
    if "test" in found:
        warnings.warn(f"{source}: {missing}; the test split is used for validation", stacklevel=2)
        return {"train": found["train"], "validation": found["test"]}
    train, validation, halves = split_off_validation(found["train"], seed)
    together = apart = ""
    if halves.kept_together:
        groups = f"{halves.kept_together} group{'s' * (halves.kept_together > 1)} of images that look alike"
        together = f"; {groups} stay{'s' * (halves.kept_together == 1)} together"
    if halves.taken_apart:
        apart = f"; {halves.taken_apart} images look so much alike that they had to be divided"
    warnings.warn(
        f"{source}: {missing}; every fifth image of the training data becomes one, the classes spread over both: "
        f"{len(train.records)} images for training, {len(validation.records)} for validation (seed {seed})"
        f"{together}{apart}",
        stacklevel=2,
    )
    return {**found, "train": train, "validation": validation}


def split_off_validation(split: SourceSplit, seed: int = 0) -> tuple[SourceSplit, SourceSplit, Halves]:
    """Split 80/20 into training and validation; images that look alike stay together, and classes are in both.

    Images that cannot be read stay with the training data, where the check names them: the validation data would be
    too few without them.

    Raises:
        DataError: there are fewer than two images.
    """
    labels = {key: label for label, key in enumerate(split.names)}
    present = [
        {labels[item.category] for item in record.objects if item.category in labels} for record in split.records
    ]
    if len(present) < 2:
        raise locate("expected at least two images to split into train and validation", split.source)
    fingerprints = [
        found for _, found in in_threads(_fingerprint, split.records, "Looking for images that look alike")
    ]
    readable = [index for index, found in enumerate(fingerprints) if found is not None]
    if len(readable) < 2:
        readable = list(range(len(present)))
    halves = divided([present[index] for index in readable], [fingerprints[index] for index in readable], seed)
    validation = [readable[index] for index in halves.validation]
    train = sorted(set(range(len(present))) - set(validation))
    halves = replace(halves, train=train, validation=validation)
    return split.select(train), split.select(validation), halves


def divided(present: Sequence[set[int]], fingerprints: Sequence[Fingerprint | None], seed: int) -> Halves:
    """Divide images into training and validation.

    A unit is a group of images that look alike, or a single image. Units are ordered by the rarest class that they
    show, at random within the class. Of each five images or so one goes to validation. A unit moves as a whole, and
    the only unit of a class stays. Then classes that only one part shows get a unit in the other part.

    Where too little can go to validation because most images look alike, the largest group is taken apart. Copies of
    the same file stay together even then, unless the group holds nothing else.

    Args:
        present: the labels that each image shows.
        fingerprints: the fingerprint by which each image is compared, None where it cannot be read.
        seed: the number with which the order is drawn.
    """
    groups = groups_of_look_alikes(fingerprints)
    taken_apart: set[int] = set()
    while True:
        validation = _chosen(_units(groups, len(present)), present, seed)
        if len(validation) >= LEAST_SHARE * len(present) or not groups:
            break
        largest = max(groups, key=len)
        copies = [found for found in _copies(largest, fingerprints) if found != largest]
        taken_apart |= set(largest)
        groups = [group for group in groups if group is not largest] + copies
    train = [index for index in range(len(present)) if index not in validation]
    return Halves(train, sorted(validation), len(groups), len(taken_apart))


def _fingerprint(record: SourceImage) -> Fingerprint | None:
    try:
        return fingerprint_of(image_bytes(record.image))
    except (DataError, OSError, SyntaxError, ValueError, TypeError, AttributeError, PIL.Image.DecompressionBombError):
        return None  # the check names it


def _copies(group: Sequence[int], fingerprints: Sequence[Fingerprint | None]) -> list[list[int]]:
    """Return the images of a group that are the same file, as groups of two or more."""
    found: dict[bytes, list[int]] = {}
    for index in group:
        fingerprint = fingerprints[index]
        if fingerprint is not None:
            found.setdefault(fingerprint.digest, []).append(index)
    return [copies for copies in found.values() if len(copies) > 1]


def _units(groups: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    grouped = {index for group in groups for index in group}
    return sorted([*map(list, groups), *([index] for index in range(count) if index not in grouped)])


def _chosen(units: Sequence[Sequence[int]], present: Sequence[set[int]], seed: int) -> set[int]:
    """Return the images for validation."""
    shown = [set().union(*(present[index] for index in unit)) for unit in units]
    frequency = Counter(label for labels in present for label in labels)
    rarest = [min((frequency[label], label) for label in labels) if labels else (0, -1) for labels in shown]
    shuffled: list[int] = np.random.default_rng(seed).permutation(len(units)).tolist()
    order = sorted(shuffled, key=lambda unit: rarest[unit])
    appearances = Counter(label for labels in shown for label in labels)
    needed = {unit for unit, labels in enumerate(shown) if any(appearances[label] == 1 for label in labels)}
    chosen: set[int] = set()
    seen = taken = 0
    for unit in order:
        size = len(units[unit])
        seen += size
        # A unit goes to validation if the share is met better with it than without it: of single images the first of
        # five.
        is_due = abs(taken + size - SHARE * seen - 0.4) < abs(taken - SHARE * seen - 0.4)
        if is_due and (unit not in needed or len(needed) == len(units)):
            chosen.add(unit)
            taken += size
    _share_classes(chosen, units, shown, frequency)
    return {index for unit in chosen for index in units[unit]}


def _share_classes(
    chosen: set[int], units: Sequence[Sequence[int]], shown: Sequence[set[int]], frequency: Mapping[int, int]
) -> None:
    """Move the smallest unit of a class that only one part shows to the other, the rarest classes first.

    A class of a single unit stays where it is. A move that takes another class from a part altogether, or leaves a
    part without images, is not made.
    """
    images = sum(map(len, units))
    for label in sorted(frequency, key=lambda label: (frequency[label], label)):
        members = [unit for unit, labels in enumerate(shown) if label in labels]
        inside = [unit for unit in members if unit in chosen]
        if 0 < len(inside) < len(members) or len(members) == 1:
            continue
        for unit in sorted(members, key=lambda unit: (len(units[unit]), unit)):
            after = chosen ^ {unit}
            size = sum(len(units[number]) for number in after)
            grows = unit in after
            lost = any(
                other != label and not any((member in after) != grows for member in _showing(other, shown))
                for other in shown[unit]
            )
            if 0 < size <= (MOST_SHARE if grows else 1) * images and size < images and not lost:
                chosen ^= {unit}
                break


def _showing(label: int, shown: Sequence[set[int]]) -> list[int]:
    return [unit for unit, labels in enumerate(shown) if label in labels]
