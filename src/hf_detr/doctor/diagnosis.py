"""Runs the whole examination: it reads every image and annotation once, makes all checks, and recommends a run."""

import warnings
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from hf_detr.training.recipe import default_image_size

from ..data.loading import source_splits
from ..data.options import ReadOptions
from ..data.schema import SourceSplit
from .box_checks import box_findings, outside_findings, query_findings, with_boxes_as_meant
from .class_checks import class_counts, class_findings
from .examined import ExaminedSplit, examined_split
from .findings import Finding, Place, Severity, finding, most_severe_first
from .image_checks import copy_findings, image_findings, unlisted_findings
from .image_facts import read_all
from .left_out import errors_of_left_out_images
from .recommendation import Recommendation, most_objects, num_queries, recommend, tiny_findings


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is known about a data set after an examination.

    Attributes:
        data: the data set as it was named.
        sources: its splits as the files have them, from which pictures are read.
        splits: its splits after they were read once, with boxes in pixels, whatever format the files have.
        findings: the problems that were found, the most severe first.
        recommendation: the recommended way to train on it.
    """

    data: str
    sources: Mapping[str, SourceSplit]
    splits: Mapping[str, ExaminedSplit]
    findings: tuple[Finding, ...]
    recommendation: Recommendation

    @property
    def trainable(self) -> bool:
        """Whether there is no error among the findings."""
        return not self.count(Severity.ERROR)

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(found.severity == severity for found in self.findings)


def examine(
    data: str | Path, seed: int = 0, options: ReadOptions | None = None, progress_on: Console | None = None
) -> Diagnosis:
    """Read every image and annotation of a data set once and say what is wrong with it.

    Args:
        data: a folder, or anything else that `load_detection_data` takes.
        seed, options: see `load_detection_data`.
        progress_on: the console on which a progress bar is shown.

    Raises:
        DataError: there is no such data set, or its annotations cannot be read at all.
    """
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", UserWarning)
        sources = source_splits(data, seed, options)
    splits, formats, format_findings = {}, set(), []
    for name, source in sources.items():
        facts = read_all(source.records)
        total = len(source.records) if isinstance(source.records, Sized) else None
        read = track(facts, f"Reading {name}", total=total, console=progress_on, disable=progress_on is None)
        splits[name], mistaken, found = with_boxes_as_meant(examined_split(name, source, read))
        formats.add(None if mistaken is None else mistaken.box_format)
        format_findings += found
    options = options or ReadOptions()
    if len(formats) == 1 and options.box_format is None:
        options = replace(options, box_format=formats.pop())
    recommendation = recommend(str(data), splits, options)
    preset = recommendation.preset.value
    findings = [*_empty_splits(splits), *format_findings]
    for split in splits.values():
        findings += image_findings(split)
        findings += box_findings(split)
    findings += outside_findings(splits)
    findings += class_findings(splits)
    findings += _other_refusals(splits, findings)
    findings += copy_findings(splits)
    for split in splits.values():
        findings += query_findings(split, preset, num_queries(preset))
    findings += tiny_findings(splits["train"], default_image_size(preset))
    findings += unlisted_findings(splits)
    findings += _remarks(remarks)
    judged = errors_of_left_out_images(most_severe_first(findings), splits, options.skip_unusable)
    return Diagnosis(str(data), sources, splits, most_severe_first(judged), recommendation)


def split_statistics(split: ExaminedSplit) -> dict[str, Any]:
    """Return the numbers of a split that a report begins with."""
    sizes = sorted((fact.size for fact in split.facts if fact.size is not None), key=min)
    smallest, largest = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1])) if sizes else (None, None)
    return {
        "images": len(split.records),
        "objects": len(split.boxes),
        "images without objects": sum(not record.objects for record in split.records),
        "objects in an image, at most": most_objects(split),
        "smallest image": smallest,
        "largest image": largest,
        "objects of each class": class_counts(split),
    }


def _empty_splits(splits: Mapping[str, ExaminedSplit]) -> list[Finding]:
    places = []
    for split in splits.values():
        if not split.records:
            places.append(Place("no image in it", split.name, str(split.source)))
        elif split.options.skip_unusable and len(split.left_out) == len(split.records):
            places.append(Place("none of its images can be used", split.name, str(split.source)))
    advice = "check that the annotations are complete"
    return finding("empty_split", Severity.ERROR, "splits have no image", advice, places)


def _remarks(remarks: list[warnings.WarningMessage]) -> list[Finding]:
    return finding(
        "remark",
        Severity.NOTE,
        "remarks on how the files were read",
        "nothing, if this is what you meant",
        (Place(str(remark.message)) for remark in remarks if issubclass(remark.category, UserWarning)),
    )


def _other_refusals(splits: Mapping[str, ExaminedSplit], findings: list[Finding]) -> list[Finding]:
    """Return the records that loading refuses for a reason that no error names yet."""
    errors = [found for found in findings if found.severity is Severity.ERROR]
    named = {(place.split, place.image_id) for found in errors for place in found.places}
    places = [
        split.place(index, reason)
        for split in splits.values()
        for index, reason in split.refusals.items()
        if (split.name, split.records[index].image_id) not in named
    ]
    return finding(
        "refused_record",
        Severity.ERROR,
        "images have annotations that cannot be used",
        "correct what the message names",
        places,
    )
