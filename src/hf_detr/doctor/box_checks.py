"""Finds broken, negative, outside, empty and duplicate boxes, and images with too many boxes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torchvision.ops import box_iou

from ..data.box_checks import OVERFLOW_TOLERANCE, Changes, reaches_outside
from ..data.mistaken_format import MistakenFormat, mistaken_format
from .examined import ExaminedSplit
from .findings import Finding, Place, Severity, finding

DUPLICATE_IOU = 0.95
"""Two boxes of a class with a larger IoU are taken for one object drawn twice: two objects do not agree so well."""


def with_boxes_as_meant(split: ExaminedSplit) -> tuple[ExaminedSplit, MistakenFormat | None, list[Finding]]:
    """Return the split with its boxes as they were meant, and their true format with a finding if it is another one.

    The checks that follow see the boxes as they were meant, and do not report the same mistake once more for each box.
    """
    judged = _judged(split)
    if not len(judged):
        return split, None, []
    boxes = split.boxes
    found = mistaken_format(boxes.numbers[judged], boxes.image_size[judged], boxes.box_format[judged[0]])
    if found is None:
        return split, None, []
    bbox = boxes.bbox.copy()
    bbox[judged] = found.bbox
    findings = finding(
        "box_format",
        Severity.ERROR,
        f"boxes of {split.name} contradict their format; it seems to be {found.name}: {found.evidence}",
        f"{found.remedy}; or convert them in the files",
        (split.box_place(index, f"bbox {_shown(boxes.item[index].bbox)}") for index in judged[found.misfits].tolist()),
    )
    return replace(split, boxes=replace(boxes, bbox=bbox)), found, findings


def _judged(split: ExaminedSplit) -> np.ndarray:
    """Return the positions of the boxes to judge: the boxes of the most frequent format, unless the user named one."""
    boxes = split.boxes
    stated = np.array([not item.from_outline for item in boxes.item], dtype=bool) & boxes.finite
    if split.options.box_format is not None or not stated.any():
        return np.zeros(0, dtype=np.int64)
    formats, counts = np.unique(boxes.box_format[stated].astype(str), return_counts=True)
    return np.flatnonzero(stated & (boxes.box_format == formats[counts.argmax()]))


def outside_findings(splits: Mapping[str, ExaminedSplit]) -> list[Finding]:
    """Return the boxes of all splits that reach beyond their image, and what clipping does to them."""
    clipping, places = Changes(), []
    for split in splits.values():
        outside = _outside(split)
        places += _places(split, outside)
        clipping += _clipping(split, outside)
    clips = any(split.options.clip_boxes for split in splits.values())
    did, would = f"--clip-boxes makes training {clipping.in_words()}", f"--clip-boxes would {clipping.in_words()}"
    return finding(
        "outside_box",
        Severity.NOTE if clips else Severity.ERROR,
        f"boxes reach more than {OVERFLOW_TOLERANCE:g} pixels beyond their image",
        f"{did if clips else would}; check that the images were not resized or cropped after they were annotated",
        places,
    )


def _clipping(split: ExaminedSplit, outside: np.ndarray) -> Changes:
    bbox, size = split.boxes.bbox[outside], split.boxes.image_size[outside]
    inner = np.minimum(bbox[:, :2] + bbox[:, 2:], size) - np.maximum(bbox[:, :2], 0)
    dropped = int((inner <= 0).any(axis=1).sum())
    return Changes(0, len(inner) - dropped, dropped, len(np.unique(split.boxes.image[outside])))


def box_findings(split: ExaminedSplit) -> list[Finding]:
    """Return what is wrong with single boxes of a split."""
    boxes = split.boxes
    unreadable = ~np.isfinite(boxes.numbers).all(axis=1)
    negative = _negative(split)
    empty = ~unreadable & ~negative & ~_outside(split) & (boxes.bbox[:, 2:] == 0).any(axis=1)
    return [
        *finding(
            "broken_box",
            Severity.ERROR,
            "boxes are not four finite numbers",
            "delete these annotations, or draw them anew",
            _places(split, unreadable),
        ),
        *finding(
            "negative_box",
            Severity.ERROR,
            "boxes have a negative width or height",
            "delete these annotations, or exchange the corners they were made from",
            _places(split, negative),
        ),
        *finding(
            "empty_box",
            Severity.WARNING,
            "boxes have no area; training leaves them out",
            "delete these annotations, or draw them anew",
            _places(split, empty),
        ),
        *finding(
            "duplicate_box",
            Severity.WARNING,
            f"boxes repeat another of the same class (IoU above {DUPLICATE_IOU})",
            "delete one of each pair: a detector without non-maximum suppression is taught to find things twice",
            _duplicates(split),
        ),
    ]


def query_findings(split: ExaminedSplit, preset: str, num_queries: int) -> list[Finding]:
    """Return the images that show more objects than the model has queries."""
    counts = np.bincount(split.boxes.image[split.boxes.solid & ~split.boxes.crowd], minlength=len(split.records))
    return finding(
        "more_objects_than_queries",
        Severity.WARNING,
        f"images show more objects than the {num_queries} queries of '{preset}' can find",
        "use more queries (see the recommendation), or cut the images into tiles",
        (split.place(index, f"{counts[index]} objects") for index in np.flatnonzero(counts > num_queries).tolist()),
    )


def _negative(split: ExaminedSplit) -> np.ndarray:
    """Return which boxes (N,) bool have a negative width or height."""
    return np.isfinite(split.boxes.numbers).all(axis=1) & (split.boxes.bbox[:, 2:] < 0).any(axis=1)


def _outside(split: ExaminedSplit) -> np.ndarray:
    """Return which boxes (N,) bool reach beyond their image, as far as its size is known."""
    boxes = split.boxes
    return boxes.finite & ~_negative(split) & reaches_outside(boxes.bbox.T, *boxes.image_size.T)


def _places(split: ExaminedSplit, mask: np.ndarray) -> list[Place]:
    places = []
    for index in np.flatnonzero(mask).tolist():
        record = split.records[split.boxes.image[index]]
        size = f"in an image of {record.width}x{record.height}"
        places.append(split.box_place(index, f"bbox {_shown(split.boxes.item[index].bbox)} {size}"))
    return places


def _duplicates(split: ExaminedSplit) -> list[Place]:
    boxes = split.boxes
    candidates = np.flatnonzero(boxes.solid & ~boxes.crowd)
    places = []
    starts = np.flatnonzero(np.diff(boxes.image[candidates], prepend=-1))  # objects stand image by image
    for members in np.split(candidates, starts[1:]) if len(candidates) else ():
        corners = boxes.bbox[members].copy()
        corners[:, 2:] += corners[:, :2]
        same_class = boxes.label[members][:, None] == boxes.label[members]
        overlap = box_iou(torch.from_numpy(corners), torch.from_numpy(corners)).numpy()
        firsts, seconds = np.nonzero(np.triu((overlap > DUPLICATE_IOU) & same_class, k=1))
        for second in sorted(set(seconds.tolist())):
            first = firsts[seconds == second][0]
            detail = f"repeats annotation id {boxes.item[members[first]].id} (IoU {overlap[first, second]:.2f})"
            places.append(split.box_place(int(members[second]), detail))
    return places


def _shown(bbox: object) -> str:
    if not isinstance(bbox, list | tuple | np.ndarray):
        return repr(bbox)
    return "[" + ", ".join(f"{value:g}" if isinstance(value, int | float) else repr(value) for value in bbox) + "]"
