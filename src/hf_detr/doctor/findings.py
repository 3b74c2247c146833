"""Defines a finding of the doctor: its severity, what was found, where, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """The severity of a finding.

    With an ERROR, training fails or learns nothing. With a WARNING, the detector gets worse. A NOTE is worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Place:
    """One place of a finding, with as many details as apply, and what was found there."""

    detail: str = ""
    split: str | None = None
    file: str | None = None
    image_id: Any = None
    annotation_id: Any = None

    def __str__(self) -> str:
        places = [
            self.split,
            self.file,
            None if self.image_id is None else f"image id {self.image_id}",
            None if self.annotation_id is None else f"annotation id {self.annotation_id}",
        ]
        where = ", ".join(str(place) for place in places if place is not None)
        return ": ".join(part for part in (where, self.detail) if part)


@dataclass(frozen=True)
class Finding:
    """One kind of finding in a data set.

    Attributes:
        kind: its name for programs, such as "outside_box".
        severity: the severity of the finding.
        title: the words that say what was found.
        advice: the words that say what to do about it.
        places: the places where it was found, each occurrence once.
    """

    kind: str
    severity: Severity
    title: str
    advice: str
    places: tuple[Place, ...]

    @property
    def count(self) -> int:
        """The number of places where it was found."""
        return len(self.places)

    @property
    def headline(self) -> str:
        """The title with the number of places."""
        return f"{self.title} ({self.count})"

    def shown(self, most: int) -> list[str]:
        """Return the first places as text, and how many more there are."""
        lines = [str(place) for place in self.places[:most]]
        left = self.count - len(lines)
        return [*lines, f"and {left} more"] if left else lines


def finding(kind: str, severity: Severity, title: str, advice: str, places: Iterable[Place]) -> list[Finding]:
    """Return a list with the finding, or an empty list where the finding has no place."""
    places = tuple(places)
    return [Finding(kind, severity, title, advice, places)] if places else []


def most_severe_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Join findings that say the same of several splits; order them by severity, and within one as they came."""
    joined: dict[tuple[str, str], Finding] = {}
    for found in findings:
        before = joined.get((found.kind, found.title))
        places = (*before.places, *found.places) if before else found.places
        joined[found.kind, found.title] = replace(found, places=places)
    return tuple(sorted(joined.values(), key=lambda found: list(Severity).index(found.severity)))
