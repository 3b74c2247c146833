"""Prints what a command says. Rank 0 prints results; an error is one line, from the rank that meets it first."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from .ranks import first_to_report, rank

console = Console(quiet=rank() != 0)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn an error that a user can mend into one line and exit code 2, and each warning into one line."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # reading and writing weights takes a moment only
    try:
        with one_line_warnings():
            if rank() != 0:
                warnings.simplefilter("ignore")
                warnings.filterwarnings("default", message=".*: left out row ")  # of a stream: no other rank reads it
                logging.set_verbosity_error()
            yield
    except (ValueError, OSError) as error:
        report_once("; ".join([without_traceback(str(error)), *getattr(error, "__notes__", ())]))
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        remedy = "install what training and evaluation need: pip install 'hf-detr[train]'"
        report_once(f"{error.name} is not installed; {remedy}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        report_once("; ".join(["interrupted", *getattr(error, "__notes__", ())]))
        raise typer.Exit(130) from error


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print each Python warning as one line, without the line of code that it comes from.

    Warnings of Pillow are left out, because they name no file. Our `LargePictureWarning` says what matters of them.
    """
    with warnings.catch_warnings():  # puts back the filters and `showwarning`
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = _show_in_one_line
        yield


def _show_in_one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"hf-detr: warning: {' '.join(str(message).split())}", err=True)


def without_traceback(message: str) -> str:
    """Return the message of an error, without the traceback of the loader worker that passed the error on."""
    if "\nOriginal Traceback" not in message:
        return message
    return message.rstrip().splitlines()[-1].partition(": ")[2]


def report_once(message: str) -> None:
    """Print an error, unless another rank has printed the same."""
    if first_to_report(message):
        typer.echo(f"hf-detr: {message}", err=True)
