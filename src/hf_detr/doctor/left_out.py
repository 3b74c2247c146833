"""What the errors of a data set are when its owner leaves out the images that cannot be used."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .examined import ExaminedSplit
from .findings import Finding, Severity

REFUSED_AS_A_WHOLE = "box_format"
"""The kind of error that ends loading whatever is left out: boxes of the whole split have another format."""


def errors_of_left_out_images(
    findings: Iterable[Finding], splits: Mapping[str, ExaminedSplit], skip_unusable: bool
) -> list[Finding]:
    """Return the findings with the errors of images that `--skip-unusable` leaves out as warnings with their count.

    Args:
        findings: of all splits, each kind once.
        splits: the splits after they were read.
        skip_unusable: whether the images are left out; if not, the findings are returned as they are.
    """
    if not skip_unusable:
        return list(findings)
    left_out = {key for split in splits.values() for key in _images(split, left_out=True)}
    kept = {key for split in splits.values() for key in _images(split, left_out=False)}
    return [
        part for found in findings for part in _parts(found, left_out if _names_repeats(found) else left_out - kept)
    ]


def _images(split: ExaminedSplit, left_out: bool) -> set[tuple[str | None, Any]]:
    return {
        (split.name, record.image_id)
        for index, record in enumerate(split.records)
        if (index in split.left_out) == left_out
    }


def _names_repeats(found: Finding) -> bool:
    """Whether the places are images with the id of another one, which is kept."""
    return found.kind == "repeated_image_id"


def _parts(found: Finding, left_out: set[tuple[str | None, Any]]) -> list[Finding]:
    """Return an error as a warning about the images that are left out, and an error about all other places."""
    if found.severity is not Severity.ERROR or found.kind == REFUSED_AS_A_WHOLE:
        return [found]
    out = tuple(place for place in found.places if (place.split, place.image_id) in left_out)
    rest = tuple(place for place in found.places if (place.split, place.image_id) not in left_out)
    count = len({(place.split, place.image_id, place.file) for place in out})
    title = f"{found.title}; --skip-unusable leaves {count} image{'s' * (count != 1)} out"
    parts = (replace(found, places=rest), replace(found, severity=Severity.WARNING, title=title, places=out))
    return [part for part in parts if part.places]
