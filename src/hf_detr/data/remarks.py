"""Words one message about many things: their number, and the names of the first few."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LISTED = 5
"""The number of things that a message names of all that it counts."""
ONE_CLASS = "object"
"""The class of all objects where the files name no class."""


def in_short(names: Sequence[Any], limit: int = LISTED) -> str:
    """Return the first few of some names, and how many more there are: "a.jpg, b.jpg and 3 more"."""
    shown = ", ".join(str(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun in the singular or the plural: "1 picture", "2 pictures"."""
    return f"1 {noun}" if count == 1 else f"{count} {nouns or noun + 's'}"


def say_left_out(source: Path | str, names: Sequence[str], noun: str, why: str, whys: str | None = None) -> None:
    """Warn once of what is left out: how many, what they are, and the names of the first few.

    Args:
        source: the file or folder that the message names.
        names: the names of the things that are left out; without any, there is no warning.
        noun: the word for one of them, such as "label file".
        why: the words after the noun, such as "to which there is no image".
        whys: the words after the plural, where they differ.
    """
    if names:
        why = why if len(names) == 1 or whys is None else whys
        warnings.warn(f"{source}: left out {counted(len(names), noun)} {why}: {in_short(names)}", stacklevel=3)


def say_one_class(source: Path | str) -> None:
    """Warn that objects without a class are taken to be all of one."""
    warnings.warn(f"{source}: the objects have no classes, and are all taken as {ONE_CLASS!r}", stacklevel=3)
