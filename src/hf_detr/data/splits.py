"""Which images are for training and which for validation, where the data do not say."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .schema import SourceSplit, locate

SPLIT_EVERY = 5
"""Without a validation split, every fifth image becomes one."""


def with_validation(splits: Mapping[str, SourceSplit], source: str | Path, seed: int = 0) -> dict[str, SourceSplit]:
    """Return the splits `train`, `validation` and what else there is; a warning says how a missing one was made.

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
    train, validation = split_off_validation(found["train"], seed)
    warnings.warn(
        f"{source}: {missing}; every fifth image of the training data becomes one, the classes spread over both: "
        f"{len(train.records)} images for training, {len(validation.records)} for validation (seed {seed})",
        stacklevel=2,
    )
    return {**found, "train": train, "validation": validation}


def split_off_validation(split: SourceSplit, seed: int = 0) -> tuple[SourceSplit, SourceSplit]:
    """Split 80/20 into training and validation so that every class, the rare ones first, is spread over both.

    Images are ordered by the rarest class they show, at random within it, and every fifth goes to validation.

    Raises:
        DataError: there are fewer than two images.
    """
    labels = {key: label for label, key in enumerate(split.names)}
    present = [
        {labels[item.category] for item in record.objects if item.category in labels} for record in split.records
    ]
    if len(present) < 2:
        raise locate("expected at least two images to split into train and validation", split.source)
    frequency = Counter(label for shown in present for label in shown)
    rarest = [min((frequency[label], label) for label in shown) if shown else (0, -1) for shown in present]
    shuffled: list[int] = np.random.default_rng(seed).permutation(len(present)).tolist()
    order = sorted(shuffled, key=lambda index: rarest[index])
    validation = sorted(order[::SPLIT_EVERY])
    return split.select(sorted(set(order) - set(validation))), split.select(validation)
