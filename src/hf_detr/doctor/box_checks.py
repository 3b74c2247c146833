"""Findings about boxes: broken, negative, outside, empty and duplicate ones, and images with too many of them."""

from dataclasses import replace

import numpy as np
import torch
from torchvision.ops import box_iou

from ..data.schema import OVERFLOW_TOLERANCE
from .box_format import mistaken_format
from .examined import ExaminedSplit
from .findings import Finding, Place, Severity, finding

DUPLICATE_IOU = 0.95
"""Two annotators never agree so well about two objects; one object drawn twice does."""


def with_boxes_in_pixels(split: ExaminedSplit) -> tuple[ExaminedSplit, list[Finding]]:
    """Return the split with its boxes as (x, y, width, height) in pixels, and the finding where they were not.

    What follows then speaks of the boxes as they were meant, not of one mistake in each of them once more.
    """
    found = mistaken_format(split.boxes)
    if found is None:
        return split, []
    findings = finding(
        "box_format",
        Severity.ERROR,
        f"boxes of {split.name} contradict their format; it seems to be {found.name}: {found.evidence}",
        "convert them to what the layout asks for: (x, y, width, height) in pixels for COCO, for instance",
        (split.box_place(index, f"bbox {_shown(split.boxes.item[index].bbox)}") for index in found.misfits.tolist()),
    )
    return replace(split, boxes=replace(split.boxes, bbox=found.bbox)), findings


def box_findings(split: ExaminedSplit) -> list[Finding]:
    """Return what is wrong with single boxes of a split."""
    boxes = split.boxes
    unreadable = np.isnan(boxes.bbox).any(axis=1) | np.isinf(boxes.bbox).any(axis=1)
    negative = ~unreadable & (boxes.bbox[:, 2:] < 0).any(axis=1)
    outside = boxes.finite & ~negative & (_overflow(split) > OVERFLOW_TOLERANCE)
    empty = ~unreadable & ~negative & ~outside & (boxes.bbox[:, 2:] == 0).any(axis=1)
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
            "outside_box",
            Severity.ERROR,
            f"boxes reach more than {OVERFLOW_TOLERANCE:g} pixels beyond their image",
            "clip them, or check that the image was not resized or cropped after it was annotated",
            _places(split, outside),
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


def _overflow(split: ExaminedSplit) -> np.ndarray:
    """Return by how many pixels each box (N,) reaches beyond its image, NaN where that is unknown."""
    corner, extent = split.boxes.bbox[:, :2], split.boxes.bbox[:, 2:]
    return np.maximum(-corner, corner + extent - split.boxes.image_size).max(axis=1, initial=-np.inf)


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
