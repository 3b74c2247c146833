"""Finds classes that are undeclared, unused, rare, out of balance or different between splits."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from hf_detr.data.problems import NO_OBJECTS, NO_OBJECTS_ADVICE

from .examined import NOT_DECLARED, ExaminedSplit
from .findings import Finding, Place, Severity, finding

FEW_OBJECTS = 20
"""A class with fewer training objects than this is seen about once an epoch in a small run, and one object in the
validation split moves its AP by a fifth."""
IMBALANCE = 10.0
"""The ratio between the most and the least frequent class above which a finding is made. The focal loss copes with
less."""


def class_counts(split: ExaminedSplit) -> dict[str, int]:
    """Return the number of objects of each declared class, in the order of the labels."""
    label = split.boxes.label
    counts = np.bincount(label[label != NOT_DECLARED], minlength=len(split.names)).tolist()
    by_name = dict.fromkeys(split.names.values(), 0)
    for name, count in zip(split.names.values(), counts, strict=True):
        by_name[name] += count  # a name may be declared twice, by mistake
    return by_name


def class_findings(splits: Mapping[str, ExaminedSplit]) -> list[Finding]:
    """Return what is wrong with the classes of a data set. Counts are judged by the training split."""
    train = splits["train"]
    return [
        *finding(
            "no_objects",
            Severity.ERROR,
            NO_OBJECTS,
            NO_OBJECTS_ADVICE,
            [] if len(train.boxes) else [Place("no annotation in it", train.name, str(train.source))],
        ),
        *finding(
            "undeclared_category",
            Severity.ERROR,
            "objects have a category that is not declared",
            "declare the category, or correct these annotations",
            [place for split in splits.values() for place in _undeclared(split)],
        ),
        *finding(
            "class_names",
            Severity.ERROR,
            "problems with the names of the classes",
            "declare all classes in the training split, each with a name of its own",
            _name_problems(splits),
        ),
        *_frequency_findings(train),
        *finding(
            "class_not_evaluated",
            Severity.NOTE,
            "classes of the training split are in no validation image: their AP will be missing",
            "move some of their images to the validation split",
            _not_evaluated(splits),
        ),
    ]


def _frequency_findings(train: ExaminedSplit) -> list[Finding]:
    counts = class_counts(train)
    if not any(counts.values()):
        return []
    file = str(train.source)
    most = max(counts, key=lambda name: counts[name])
    few = {name: count for name, count in counts.items() if 0 < count < FEW_OBJECTS}
    rare = {name: count for name, count in counts.items() if count >= FEW_OBJECTS and counts[most] > IMBALANCE * count}
    return [
        *finding(
            "unused_category",
            Severity.WARNING,
            "declared classes have no object in the training split",
            "delete the class (some tools add one with the name of the project), or annotate it",
            (Place(f"class '{name}'", train.name, file) for name, count in counts.items() if count == 0),
        ),
        *finding(
            "few_objects",
            Severity.WARNING,
            f"classes have fewer than {FEW_OBJECTS} objects to learn from",
            "annotate more of them, or join them with a class that looks alike",
            (Place(f"class '{name}': {count}", train.name, file) for name, count in few.items()),
        ),
        *finding(
            "class_imbalance",
            Severity.WARNING,
            f"classes are more than {IMBALANCE:g} times as rare as '{most}' ({counts[most]} objects)",
            "read the AP of each class, not only the mean; annotate more of the rare ones",
            (Place(f"class '{name}': {count}", train.name, file) for name, count in rare.items()),
        ),
    ]


def _undeclared(split: ExaminedSplit) -> list[Place]:
    declared = ", ".join(f"{key!r}" for key in list(split.names)[:10]) + (", ..." if len(split.names) > 10 else "")
    return [
        split.box_place(index, f"category {split.boxes.item[index].category!r}; declared are {declared}")
        for index in np.flatnonzero(split.boxes.label == NOT_DECLARED).tolist()
    ]


def _name_problems(splits: Mapping[str, ExaminedSplit]) -> list[Place]:
    train = list(splits["train"].names.values())
    places = []
    for split in splits.values():
        names = list(split.names.values())
        if not names:
            places.append(Place("no class is declared", split.name, str(split.source)))
        for name, count in Counter(names).items():
            if count > 1:
                places.append(Place(f"the name {name!r} stands for {count} categories", split.name, str(split.source)))
        unknown = [name for name in names if name not in train]
        if unknown:
            problem = f"the classes {unknown} are not among the classes of the training split, {train}"
            places.append(Place(problem, split.name, str(split.source)))
    return places


def _not_evaluated(splits: Mapping[str, ExaminedSplit]) -> list[Place]:
    if "validation" not in splits:
        return []
    validation = splits["validation"]
    counts = class_counts(validation)
    return [
        Place(f"class '{name}'", validation.name, str(validation.source))
        for name, count in class_counts(splits["train"]).items()
        if count and not counts.get(name)
    ]
