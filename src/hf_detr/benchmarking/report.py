"""Turns the records of suites into JSON files, tables, a figure and sections of a page."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

from hf_detr.files import read_json

from .registry import Program

Record = dict[str, Any]

COLUMNS = ("", "median", "times as fast", "GFLOP/s", "of the peak", "peak memory")


def read_record(path: Path, program: Program) -> Record:
    """Read the record of a suite of a program.

    Raises:
        ValueError: the file is not such a record.
    """
    record = read_json(path, ("suite", "comparisons"), f"a record that `{program.name}` writes")
    if record["suite"] not in program.suites:
        known = ", ".join(program.suites)
        raise ValueError(f"{path}: expected the record of one of the suites {known}, found {record['suite']!r}")
    return record


def rows(comparison: Mapping[str, Any], peaks: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return one row for each contestant, in the order of `COLUMNS`, with a dash for what was not measured."""
    return [row(contestant, comparison["baseline"], peaks) for contestant in comparison["contestants"]]


def row(contestant: Mapping[str, Any], baseline: str, peaks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the cells of one contestant. The reason why it has no time stands in place of the time."""
    name = contestant["name"]
    for excuse in ("skipped", "failed"):
        if excuse in contestant:
            return [name, f"{excuse}: {contestant[excuse]}", *["-"] * (len(COLUMNS) - 2)]
    return [
        name,
        show_seconds(contestant["seconds"]),
        "1" if name == baseline else show_ratio(contestant),
        *show_flops(contestant, peaks),
        show_memory(contestant),
    ]


def show_seconds(seconds: float) -> str:
    """Return a time with three figures, in milliseconds below one second."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def show_ratio(contestant: Mapping[str, Any]) -> str:
    """Return how many times as fast as the baseline a contestant is: median (lower to upper quartile)."""
    if "times_as_fast" not in contestant:
        return "-"
    lower, upper = contestant["times_as_fast_quartiles"]
    return f"{contestant['times_as_fast']:.2f} ({lower:.2f} to {upper:.2f})"


def show_flops(contestant: Mapping[str, Any], peaks: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """Return the GFLOP/s, and their share of the larger peak of the machine in that dtype."""
    if not contestant.get("flops"):
        return "-", "-"
    speed = contestant["flops"] / contestant["seconds"] / 1e9
    return f"{speed:.3g}", f"{speed / max(peaks[contestant['dtype']].values()):.0%}"


def show_memory(contestant: Mapping[str, Any]) -> str:
    """Return the most memory that the process of a contestant held, and the part that the work added."""
    memory = contestant.get("peak_memory_mib")
    return f"{memory['process']:.0f} MiB (work {memory['work']:.0f})" if memory else "-"


def show_parts(comparison: Mapping[str, Any]) -> list[str]:
    """Return a line for each contestant whose work has parts."""
    return [
        f"{contestant['name']}: "
        + ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in contestant["parts"].items())
        for contestant in comparison["contestants"]
        if contestant.get("parts")
    ]


def show_conditions(record: Record) -> str:
    """Return machine, versions and settings of a run in one paragraph."""
    options, peaks = record["options"], record["peaks"]
    best = "; ".join(
        f"{dtype} {figures['matrix_product']:.3g} in matrix products, {figures['convolution']:.3g} in convolutions"
        for dtype, figures in peaks.items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    malloc = "".join(f", {name}={value}" for name, value in record["malloc"].items())
    quick = " Quick: small sizes, to see that everything runs; the numbers mean little." if options["quick"] else ""
    return (
        f"{record['device']} of {record['processor']}, {record['cores']} cores, {options['threads']} threads of "
        f"PyTorch{malloc}. Medians of up to {options['rounds']} interleaved rounds; ratios within a round, with their "
        f"quartiles. Peak of this machine in GFLOP/s: {best}. Load average at the start: {record['load_average']}. "
        f"{versions}. {record['made']} UTC.{quick}"
    )


def section(record: Record, program: Program, figure: str | None = None) -> str:
    """Return a record in Markdown, with a link to its figure if there is one."""
    description = program.suites[record["suite"]].description
    parts = [description, f"`{command(record, program)}`", show_conditions(record)]
    points: list[list[str]] = []  # of curves, for one table
    for comparison in record["comparisons"]:
        if comparison["axis"]:
            points += [[comparison["name"], *cells] for cells in rows(comparison, record["peaks"])]
        else:
            parts.append(f"**{comparison['name']}**, against {comparison['baseline']}, {comparison['rounds']} rounds:")
            parts.append(table(COLUMNS, rows(comparison, record["peaks"])))
            parts.extend(f"- {line}" for line in show_parts(comparison))
    if points:
        parts.append(table(("", *COLUMNS), points))
    parts.extend([f"![{description}]({figure})"] if figure else [])
    parts.extend(growth_lines(record))
    parts.append(f"Where a peer was faster: {'; '.join(lost(record)) or 'nowhere in this suite'}.")
    return "\n\n".join(parts).replace("\n\n- ", "\n- ")


def command(record: Record, program: Program) -> str:
    """Return the command that makes such a record again."""
    options = record["options"]
    words = [program.name, record["suite"].replace("_", "-"), f"--threads {options['threads']}"]
    words += [f"--device {options['device']}", f"--rounds {options['rounds']}"]
    words += [f"--preset {preset}" for preset in options["presets"] or ()]
    words += [f"--batch {batch}" for batch in options["batches"] or ()]
    return " ".join([*words, *(f"--{name}" for name in ("quick", "compile") if options[name])])


def lost(record: Record) -> list[str]:
    """Return the peers that were faster than all forms of our model in their dtype."""
    found = []
    for comparison in record["comparisons"]:
        measured = [entry for entry in comparison["contestants"] if "seconds" in entry]
        for peer in (entry for entry in measured if not entry["name"].startswith("hf_detr")):
            ours = [
                entry["seconds"]
                for entry in measured
                if entry["name"].startswith("hf_detr") and entry["dtype"] == peer["dtype"]
            ]
            if ours and peer["seconds"] < min(ours):
                found.append(f"{peer['name']} at {comparison['name']} ({min(ours) / peer['seconds']:.2f}x)")
    return found


def curves(record: Record) -> dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]]:
    """Return the points of each curve, by what varies and by the name of the contestant, which holds the model."""
    found: dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]] = {}
    for comparison in record["comparisons"]:
        if comparison["axis"] is None:
            continue
        axis, value = comparison["axis"]
        for contestant in comparison["contestants"]:
            if "seconds" in contestant:
                label = f"{contestant['name']}, {comparison['name'].split(',')[0]}"
                found.setdefault((axis, label), []).append((value, contestant))
    return found


def growth_lines(record: Record) -> list[str]:
    """Return the exponent of each curve between its last two points: 1 is linear, 2 quadratic."""
    lines = []
    for (axis, label), points in curves(record).items():
        if len(points) > 1:
            (x0, first), (x1, last) = points[-2:]
            exponent = log(last["seconds"] / first["seconds"]) / log(x1 / x0)
            lines.append(f"- {label}: time grows with the power {exponent:.2f} of the {axis} from {x0:g} to {x1:g}")
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns but the first are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def write_section(name: str, text: str, page: Path) -> None:
    """Replace what stands between the markers of a section.

    Raises:
        ValueError: the page has no such section.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section between '{begin}' and '{end}'; add these two lines where it belongs")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
