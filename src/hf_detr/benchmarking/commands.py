"""Builds the commands of a program that runs suites: one command for each suite, `all` and `report`.

Each command imports what it needs when it runs, so that the help of the program appears at once.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from hf_detr.command_line import command
from hf_detr.files import write_json
from hf_detr.terminal import console

from .options import RESULTS, AllCommand, BenchOptions, ReportCommand, SuiteCommand
from .registry import Program, Suite


def bench_app(program: Program) -> typer.Typer:
    """Return the command line of a program."""
    app = typer.Typer(help="Measure speed and memory against other detectors on this machine.", no_args_is_help=True)
    for name, suite in program.suites.items():
        add_suite(app, program, name, suite)
    add_all(app, program)
    add_report(app, program)
    return app


def add_suite(app: typer.Typer, program: Program, name: str, suite: Suite) -> None:
    """Make a suite a command."""

    @command(app, SuiteCommand, name.replace("_", "-"), suite.description)
    def run(options: SuiteCommand) -> None:
        output = options.output or record_path(RESULTS, name, options.device)
        run_and_write(program, name, options.measured(), output)


def add_all(app: typer.Typer, program: Program) -> None:
    """Make the command `all`."""

    @command(app, AllCommand, "all")
    def run_all(options: AllCommand) -> None:
        """Run every suite, each in a process of its own, and go on if one fails. The exit code is 1 if one did."""
        words = ["--threads", str(options.threads), "--device", options.device]
        words += [flag for flag, given in (("--quick", options.quick), ("--compile", options.compile)) if given]
        words += ["--rounds", str(options.rounds)] if options.rounds else []
        failed = []
        for name in program.suites:
            console.rule(name)
            call = [sys.executable, *program.words, name.replace("_", "-")]
            call += ["--output", str(record_path(options.output, name, options.device))]
            if subprocess.run([*call, *words]).returncode:
                failed.append(name)
        if failed:
            typer.echo(f"hf-detr: these suites failed: {', '.join(failed)}", err=True)
            raise typer.Exit(1)


def add_report(app: typer.Typer, program: Program) -> None:
    """Make the command `report`."""

    @command(app, ReportCommand)
    def report(options: ReportCommand) -> None:
        """Turn JSON files into Markdown and figures."""
        paths = options.records or sorted(RESULTS.glob("speed_*.json"))
        if not paths:
            raise ValueError(f"{RESULTS} holds no speed_*.json: `{program.name} SUITE` writes them")
        for path in paths:
            show_record(path, program, options.page)


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
    write_section(name, section(record, program, figure.name if figure else None), page)
    if figure:
        plot(record, figure)


def record_path(folder: Path, suite: str, device: str) -> Path:
    """Return the file of a record in a folder of records."""
    return folder / f"speed_{suite}_{device}.json"


def run_and_write(program: Program, suite: str, options: BenchOptions, output: Path) -> None:
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
