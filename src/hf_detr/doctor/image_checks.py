"""Finds images that are missing, broken, of another size than annotated, turned, copied or without annotation."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from ..data.images import is_image
from ..data.look_alikes import groups_of_look_alikes, identical
from .examined import ExaminedSplit, size_agrees
from .findings import Finding, Place, Severity, finding

DIFFERENT_SIZES = 4.0
"""The ratio of the shortest edges of two images above which a finding is made. Published augmentation covers about
2."""
EXTREME_SHAPE = 3.0
"""An image with sides of a larger ratio than this is scaled down further than its shortest edge says."""


_KINDS = {
    "missing_image": (
        Severity.ERROR,
        "image files are missing",
        "put the files where the annotations say, or delete these images from the annotations",
    ),
    "unreadable_image": (
        Severity.ERROR,
        "images cannot be read",
        "get these files anew, or delete these images from the annotations",
    ),
    "undeclared_image": (
        Severity.ERROR,
        "image ids are used by annotations, but no image has them",
        "declare the images, or delete these annotations",
    ),
    "image_size": (
        Severity.ERROR,
        "images have another size than their annotation says, so their boxes are in the wrong place",
        "annotate the files you train on, or scale the boxes to them",
    ),
    "repeated_image_id": (
        Severity.ERROR,
        "images have the id of another image",
        "give every image an id of its own",
    ),
    "turned_image": (
        Severity.NOTE,
        "images are turned by their EXIF orientation; boxes are taken to refer to the image as displayed",
        "look at their boxes in samples.jpg: some annotation tools ignore the orientation",
    ),
    "stored_size": (
        Severity.NOTE,
        "images are turned by their EXIF orientation, and their annotations have the size as stored",
        "look at their boxes in samples.jpg: which picture they were drawn on is told by where they fit",
    ),
}
"""The problems that one image can have: the severity, the title and the advice of each."""


def image_findings(split: ExaminedSplit) -> list[Finding]:
    """Return what is wrong with the images of a split."""
    places: dict[str, list[Place]] = {kind: [] for kind in _KINDS}
    seen: dict[object, int] = {}
    for index, (record, fact) in enumerate(zip(split.records, split.facts, strict=True)):
        first = seen.setdefault(record.image_id, index)
        if first != index:
            other = Path(split.place(first).file or "").name
            places["repeated_image_id"].append(split.place(index, f"also the id of {other}"))
        if fact.problem:
            places[fact.problem_kind].append(split.place(index, fact.problem))
        elif fact.size is not None and not size_agrees(record, fact):
            problem = _size_problem((record.width, record.height), fact.size)
            places["image_size"].append(split.place(index, problem))
        if index in split.turned:
            drawn = "as displayed" if split.turned[index] else "as stored"
            places["stored_size"].append(split.place(index, f"boxes taken as drawn on the picture {drawn}"))
        elif fact.header is not None and fact.header.orientation != 1:
            places["turned_image"].append(split.place(index, f"EXIF orientation {fact.header.orientation}"))
    found = [finding(kind, *description, places[kind]) for kind, description in _KINDS.items()]
    return [*chain.from_iterable(found), *_without_objects(split), *_different_sizes(split)]


def copy_findings(splits: Mapping[str, ExaminedSplit]) -> list[Finding]:
    """Return groups of images that look the same, within a split and across splits, where they flatter the results."""
    images = [(split, index) for split in splits.values() for index in range(len(split.records))]
    fingerprints = [split.facts[index].fingerprint for split, index in images]
    across: list[Place] = []
    within: list[Place] = []
    for group in groups_of_look_alikes(fingerprints):
        alike = (
            "the same file as"
            if identical([found for member in group if (found := fingerprints[member])])
            else "looks like"
        )
        first, *others = (images[member][0].place(images[member][1]) for member in group)
        detail = f"{alike} {'; '.join(str(place) for place in others)}"
        place = Place(detail, first.split, first.file, first.image_id)
        (within if {other.split for other in others} <= {first.split} else across).append(place)
    return [
        *finding(
            "copies_across_splits",
            Severity.WARNING,
            "groups of images look the same in more than one split; evaluation is then too good to be true",
            "keep each group in one split",
            across,
        ),
        *finding(
            "copies_within_split",
            Severity.NOTE,
            "groups of images look the same within a split",
            "delete the copies; of a film, keep frames that differ",
            within,
        ),
    ]


def unlisted_findings(splits: Mapping[str, ExaminedSplit]) -> list[Finding]:
    """Return image files that lie beside annotated ones, but that no annotation names."""
    listed = {Path(r.image).resolve() for split in splits.values() for r in split.records if r.image is not None}
    places = []
    for folder in sorted({path.parent for path in listed if path.parent.is_dir()}):
        files = sorted(path for path in folder.iterdir() if is_image(path))
        places += [Place(file=str(path)) for path in files if path not in listed]
    return finding(
        "unlisted_image",
        Severity.NOTE,
        "image files lie beside annotated ones, but no annotation names them",
        "annotate them, or leave them: training does not see them",
        places,
    )


def _size_problem(annotated: tuple[int, int], displayed: tuple[int, int]) -> str:
    width, height = displayed
    problem = f"annotated as {annotated[0]}x{annotated[1]}, displayed as {width}x{height}"
    if annotated == (height, width):
        return f"{problem}: width and height are exchanged"
    return problem


def _without_objects(split: ExaminedSplit) -> list[Finding]:
    bare = [index for index, record in enumerate(split.records) if not record.objects]
    return finding(
        "image_without_objects",
        Severity.NOTE,
        f"images of {split.name} without annotation, of {len(split.records)}",
        "right if they show no object: then they teach what is background; wrong if nobody annotated them yet",
        (split.place(index) for index in bare),
    )


def _different_sizes(split: ExaminedSplit) -> list[Finding]:
    sizes = {index: fact.size for index, fact in enumerate(split.facts) if fact.size is not None}
    if not sizes:
        return []
    smallest, largest = (choose(sizes, key=lambda index: min(sizes[index])) for choose in (min, max))
    extremes = [smallest, largest] if min(sizes[largest]) > DIFFERENT_SIZES * min(sizes[smallest]) else []
    narrow = [index for index, size in sizes.items() if max(size) > EXTREME_SHAPE * min(size)]
    return [
        *finding(
            "different_sizes",
            Severity.NOTE,
            "images are the smallest and the largest of a split whose shortest edges differ more than "
            f"{DIFFERENT_SIZES:g} times; all are resized to about one size, so objects change theirs",
            "if the same things are much larger in some images, cut those into tiles",
            _sized(split, extremes, sizes),
        ),
        *finding(
            "narrow_image",
            Severity.NOTE,
            f"images are more than {EXTREME_SHAPE:g} times as long as wide; in a batch, the rest is padding",
            "cut them into tiles",
            _sized(split, narrow, sizes),
        ),
    ]


def _sized(split: ExaminedSplit, indices: Sequence[int], sizes: dict[int, tuple[int, int]]) -> list[Place]:
    return [split.place(index, f"{sizes[index][0]}x{sizes[index][1]} pixels") for index in indices]
