"""Writes the report of an examination: text for the terminal, `report.md`, `report.json` and pictures."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hf_detr.files import replace_file, write_json, write_text

from .diagnosis import Diagnosis, split_statistics
from .findings import Finding, Severity
from .pictures import class_figure, sample_sheet, size_figure
from .recommendation import default_image_size

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
PICTURES = {
    "samples.jpg": "Training images with their boxes, as training reads them",
    "sizes.png": "Sizes and shapes of the boxes",
    "classes.png": "Objects of each class",
}
PLACES_IN_TERMINAL, PLACES_IN_REPORT = 3, 20
"""The number of places of a finding that are named; `report.json` has them all."""


def check_output(data: str, output: Path) -> None:
    """Check that a report may be written to a folder.

    Raises:
        ValueError: the folder is a file, or lies in the data folder, where its json and pictures would be taken for
            data.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; expected a folder for the report")
    folder = Path(data).resolve()
    if folder.is_dir() and output.resolve().is_relative_to(folder):
        raise ValueError(
            f"{output} lies in the data folder {data}, where the report would be taken for data; "
            "choose another place with --output"
        )


def write_report(diagnosis: Diagnosis, output: Path) -> list[Path]:
    """Write `report.md`, `report.json` and the pictures to a folder; return the files."""
    output.mkdir(parents=True, exist_ok=True)
    files = write_pictures(diagnosis, output)
    write_json(output / "report.json", as_json(diagnosis))
    write_text(output / "report.md", as_markdown(diagnosis, [file.name for file in files]))
    return [output / "report.md", output / "report.json", *files]


def write_pictures(diagnosis: Diagnosis, output: Path) -> list[Path]:
    """Draw and write the pictures. An earlier sheet of samples is deleted where there is nothing to show."""
    image_size = default_image_size(diagnosis.recommendation.preset.value)
    pictures: dict[str, Any] = {
        "samples.jpg": sample_sheet(diagnosis.sources["train"], diagnosis.splits["train"]),
        "sizes.png": size_figure(diagnosis.splits, image_size),
        "classes.png": class_figure(diagnosis.splits),
    }
    for name, picture in pictures.items():
        if picture is None:
            (output / name).unlink(missing_ok=True)
        elif isinstance(picture, Image.Image):
            replace_file(output / name, partial(picture.save, format="JPEG", quality=90))
        else:
            replace_file(output / name, partial(picture.savefig, format="png", dpi=110))
    return [output / name for name, picture in pictures.items() if picture is not None]


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the whole diagnosis, every place included, in values that json can hold."""
    return {
        "data": diagnosis.data,
        "trainable": diagnosis.trainable,
        "splits": {name: split_statistics(split) for name, split in diagnosis.splits.items()},
        "findings": [
            {
                "kind": found.kind,
                "severity": found.severity.value,
                "count": found.count,
                "title": found.title,
                "advice": found.advice,
                "places": [asdict(place) for place in found.places],
            }
            for found in diagnosis.findings
        ],
        "recommendation": asdict(diagnosis.recommendation),
    }


def as_markdown(diagnosis: Diagnosis, pictures: list[str]) -> str:
    """Return the report as markdown; `pictures` are the names of the pictures that were drawn."""
    lines = [f"# Report on {diagnosis.data}", "", verdict(diagnosis), "", *_statistics_lines(diagnosis)]
    lines += ["", "## Findings", ""]
    for found in diagnosis.findings:
        lines += [f"### {found.severity.value.capitalize()}: {found.headline}", ""]
        lines += [f"To do: {found.advice}.", "", *(f"- `{line}`" for line in found.shown(PLACES_IN_REPORT)), ""]
    if not diagnosis.findings:
        lines += ["None.", ""]
    lines += ["## Recommendation", "", "| | | because |", "| --- | --- | --- |"]
    lines += [
        f"| {name.replace('_', ' ')} | {choice.value} | {choice.reason} |"
        for name, choice in diagnosis.recommendation.choices.items()
    ]
    lines += ["", "```bash", diagnosis.recommendation.command, "```", ""]
    for name in pictures:
        lines += [f"## {PICTURES[name]}", "", f"![{PICTURES[name]}]({name})", ""]
    return "\n".join(lines)


def terminal_report(diagnosis: Diagnosis) -> RenderableType:
    """Return the report for the terminal."""
    parts: list[RenderableType] = [_statistics_table(diagnosis), Text()]
    for found in diagnosis.findings:
        parts += _finding_parts(found)
    table = Table("", "", "because", title="Recommendation", title_justify="left", show_header=False)
    for name, choice in diagnosis.recommendation.choices.items():
        table.add_row(name.replace("_", " "), str(choice.value), choice.reason)
    return Group(*parts, Text(verdict(diagnosis), style="bold"), Text(), table)


def verdict(diagnosis: Diagnosis) -> str:
    """Say in a sentence whether the data set can be trained on."""
    counts = {severity: diagnosis.count(severity) for severity in Severity}
    numbers = ", ".join(f"{count} {severity.value}{'s' * (count != 1)}" for severity, count in counts.items())
    if not diagnosis.trainable:
        return f"Not ready to train on: {numbers}. Correct the errors first."
    if not diagnosis.findings:
        return "Ready to train on: nothing was found."
    return f"Ready to train on: {numbers}."


def _finding_parts(found: Finding) -> list[RenderableType]:
    headline = Text.assemble(
        (found.severity.value.upper(), f"bold {COLOURS[found.severity]}"), (f" {found.headline}", "bold")
    )
    lines = [*found.shown(PLACES_IN_TERMINAL), f"To do: {found.advice}."]
    return [headline, *(Padding(Text(line), (0, 0, 0, 4)) for line in lines), Text()]


def _statistics(diagnosis: Diagnosis) -> list[list[str]]:
    """Return the rows of the table of the splits, names first, without counts of classes, which have a picture."""
    statistics = {name: split_statistics(split) for name, split in diagnosis.splits.items()}
    rows = [name for name in next(iter(statistics.values())) if name != "objects of each class"]
    return [["", *statistics], *([row, *(str(numbers[row]) for numbers in statistics.values())] for row in rows)]


def _statistics_lines(diagnosis: Diagnosis) -> list[str]:
    header, *rows = _statistics(diagnosis)
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]


def _statistics_table(diagnosis: Diagnosis) -> Table:
    header, *rows = _statistics(diagnosis)
    table = Table(header[0])
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
