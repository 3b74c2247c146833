"""Writing files so that nobody ever reads half of one."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` write a file beside `path`, then put it in the place of `path`: nobody reads half a file."""
    beside = path.with_name(f".{path.name}.partial")
    write(beside)
    os.replace(beside, path)
