"""The options of `hf-detr bench` and of the program for maintainers."""

from dataclasses import dataclass, fields
from pathlib import Path

from hf_detr.command_line import argument, option
from hf_detr.machine import cores

RESULTS = Path("bench-results")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions under which every suite of a program is measured."""

    quick: bool = option(
        "Measure small sizes in few rounds, to see that everything runs. The numbers mean little.",
        "--quick",
        default=False,
    )
    threads: int = option("The number of threads of PyTorch.", default_factory=cores, min=1, show_default="all cores")
    device: str = option("The device to measure: cpu or cuda.", default="cpu")
    rounds: int | None = option("Measure each contestant this often at most.", default=None, min=1)
    compile: bool = option("Also measure models under torch.compile.", "--compile", default=False)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Conditions):
    """The options of one suite. Where `presets`, `batches` or `rounds` is None, the suite chooses."""

    presets: tuple[str, ...] | None = option(
        "Measure this preset only. The option may be repeated.", "--preset", default=None
    )
    batches: tuple[int, ...] | None = option(
        "Measure so many images at once, in suites that vary this number. The option may be repeated.",
        "--batch",
        default=None,
        min=1,
    )


@dataclass(frozen=True, kw_only=True)
class SuiteCommand(BenchOptions):
    """The options of the command of one suite."""

    output: Path | None = option("The JSON file to write. A figure is drawn beside it.", default=None)

    def measured(self) -> BenchOptions:
        """The part that decides what is measured."""
        return BenchOptions(**{field.name: getattr(self, field.name) for field in fields(BenchOptions)})


@dataclass(frozen=True, kw_only=True)
class AllCommand(Conditions):
    """The options of the command that runs every suite."""

    output: Path = option("The folder of the JSON files.", default=RESULTS)


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """The options of the command that shows records."""

    records: tuple[Path, ...] | None = argument(
        f"JSON files that suites have written. Without any, those in {RESULTS}/ are shown.", default=None
    )
    page: Path | None = option(
        "Write into this Markdown page, between the markers of each suite, with curves beside it. Without it, the "
        "sections are printed.",
        default=None,
    )
