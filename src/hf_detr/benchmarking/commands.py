"""The commands of a program that runs suites: one command a suite, `all` and `report`.

Each command imports what it needs when it runs, so that the help of the program appears at once.
"""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hf_detr.files import write_json
from hf_detr.machine import cores
from hf_detr.terminal import clear_errors, console

from .registry import Program, Suite

if TYPE_CHECKING:
    from .contest import BenchOptions

CORES = cores()
RESULTS = Path("bench-results")

QuickOption = Annotated[bool, typer.Option("--quick", help="Small sizes, few rounds: does everything run?")]
PresetsOption = Annotated[
    list[str] | None, typer.Option("--preset", help="Measure these presets only; may be repeated.")
]
BatchesOption = Annotated[
    list[int] | None,
    typer.Option("--batch", help="Measure so many images at once, in suites that vary it; may be repeated.", min=1),
]
ThreadsOption = Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
RoundsOption = Annotated[int | None, typer.Option(help="How often each contestant is measured.", min=1)]
CompileOption = Annotated[bool, typer.Option("--compile", help="Also measure models under torch.compile.")]


def bench_app(program: Program) -> typer.Typer:
    """The command line of a program."""
    app = typer.Typer(help="Measure speed and memory against other detectors on this machine.", no_args_is_help=True)
    for name, suite in program.suites.items():
        add_suite(app, program, name, suite)
    add_all(app, program)
    add_report(app, program)
    return app


def add_suite(app: typer.Typer, program: Program, name: str, suite: Suite) -> None:
    """Make a suite a command."""

    @app.command(name.replace("_", "-"), help=suite.description)
    def run(
        quick: QuickOption = False,
        preset: PresetsOption = None,
        batch: BatchesOption = None,
        threads: ThreadsOption = CORES,
        device: DeviceOption = "cpu",
        rounds: RoundsOption = None,
        compile: CompileOption = False,
        output: Annotated[Path | None, typer.Option(help="The JSON file; a PNG is drawn beside it.")] = None,
    ) -> None:
        with clear_errors():
            from .contest import BenchOptions

            options = BenchOptions(
                quick=quick,
                presets=tuple(preset) if preset else None,
                batches=tuple(batch) if batch else None,
                threads=threads,
                device=device,
                rounds=rounds,
                compile=compile,
            )
            run_and_write(program, name, options, output or record_path(RESULTS, name, device))


def add_all(app: typer.Typer, program: Program) -> None:
    """Make the command `all`."""

    @app.command("all")
    def run_all(
        quick: QuickOption = False,
        threads: ThreadsOption = CORES,
        device: DeviceOption = "cpu",
        rounds: RoundsOption = None,
        compile: CompileOption = False,
        output: Annotated[Path, typer.Option(help="The folder of the JSON files.")] = RESULTS,
    ) -> None:
        """Run every suite, each in a process of its own, and go on if one fails. The exit code is 1 if one did."""
        words = ["--threads", str(threads), "--device", device]
        words += [flag for flag, given in (("--quick", quick), ("--compile", compile)) if given]
        words += ["--rounds", str(rounds)] if rounds else []
        failed = []
        for name in program.suites:
            console.rule(name)
            command = [sys.executable, *program.words, name.replace("_", "-")]
            command += ["--output", str(record_path(output, name, device))]
            if subprocess.run([*command, *words]).returncode:
                failed.append(name)
        if failed:
            typer.echo(f"hf-detr: these suites failed: {', '.join(failed)}", err=True)
            raise typer.Exit(1)


def add_report(app: typer.Typer, program: Program) -> None:
    """Make the command `report`."""

    @app.command()
    def report(
        records: Annotated[
            list[Path] | None, typer.Argument(help="JSON files of suites; without any, those in bench-results/.")
        ] = None,
        page: Annotated[
            Path | None,
            typer.Option(
                help="Write into this page, between the markers of each suite, with curves beside it; or print all."
            ),
        ] = None,
    ) -> None:
        """Turn JSON files into Markdown and figures."""
        with clear_errors():
            paths = records or sorted(RESULTS.glob("speed_*.json"))
            if not paths:
                raise ValueError(f"{RESULTS} holds no speed_*.json: `{program.name} SUITE` writes them")
            for path in paths:
                show_record(path, program, page)


def show_record(path: Path, program: Program, page: Path | None) -> None:
    """Draw a record, and print its section or write it into a page."""
    from .figures import plot
    from .report import curves, read_record, section, write_section

    record = read_record(path, program)
    plot(record, path.with_suffix(".png"))
    if page is None:
        typer.echo(f"## {record['suite']}\n\n{section(record, program)}\n")
        return
    name = f"speed {record['suite']} {record['options']['device']}"
    figure = page.parent / f"{name.replace(' ', '_')}.png" if curves(record) else None
    write_section(name, section(record, program, figure and figure.name), page)
    if figure:
        plot(record, figure)


def record_path(folder: Path, suite: str, device: str) -> Path:
    """The file of a record in a folder of records."""
    return folder / f"speed_{suite}_{device}.json"


def run_and_write(program: Program, suite: str, options: "BenchOptions", output: Path) -> None:
    """Run a suite, show what it finds as it goes, and write its record and figure."""
    from .figures import plot
    from .report import rows, show_conditions, show_parts
    from .suites import run_suite

    def show(comparison: dict[str, Any], peaks: Any) -> None:
        grid = Table(
            "", "median", f"x {comparison['baseline']}", "GFLOP/s", "of peak", "memory", title=comparison["name"]
        )
        for cells in rows(comparison, peaks):
            grid.add_row(*cells)
        console.print(grid)
        for line in show_parts(comparison):
            console.print(f"  {line}", highlight=False)

    record = run_suite(program, suite, options, show)
    write_json(output, record)
    plot(record, output.with_suffix(".png"))
    console.print(show_conditions(record), highlight=False)
    console.print(f"{output}, {output.with_suffix('.png')}", soft_wrap=True)
