"""Fine-tuning on other classes: rows of the class heads move with the names of their classes.

A part with rows for classes has a method `move_classes`. It takes, for each class, the row that the class had, or None
for a class that is new.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

Rows = Sequence[int | None]
Layer = TypeVar("Layer", nn.Linear, nn.Embedding)
_MOST_NAMES = 10


@runtime_checkable
class HasClassRows(Protocol):
    """A part of a model with rows for classes."""

    def move_classes(self, rows: Rows) -> None:
        """Give each class the row that it had, or a new one."""


def class_names(id2label: Mapping[int | str, str] | None) -> list[str] | None:
    """The names by label, or None where there are none but the "LABEL_0" that transformers makes up."""
    if not id2label:
        return None
    names = [name for _, name in sorted((int(label), name) for label, name in id2label.items())]
    return None if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names) else names


def rows_by_name(saved: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """For each wanted class the row of the saved class of this name, or None. Names that repeat are taken in order."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(saved):
        rows.setdefault(name, []).append(row)
    return [rows[name].pop(0) if rows.get(name) else None for name in wanted]


def describe(saved: Sequence[str], wanted: Sequence[str], rows: Rows) -> str:
    """One line: which classes were kept by their name, which are new and which were dropped."""
    kept = [name for name, row in zip(wanted, rows, strict=True) if row is not None]
    new = [name for name, row in zip(wanted, rows, strict=True) if row is None]
    dropped = [name for row, name in enumerate(saved) if row not in set(rows)]
    line = f"Class head: kept {len(kept)} of {len(wanted)} classes by name"
    line += f" ({_listed(kept)})" if kept else ""
    for word, names in (("new", new), ("dropped", dropped)):
        line += f"; {word}: {_listed(names)}" if names else ""
    return line + "."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


@torch.no_grad()
def take_rows(new: Layer, old: Layer, rows: Rows) -> Layer:
    """`new` with the rows of `old` where a class had one, on the same device, of the same dtype and mode."""
    new = new.to(old.weight)
    places = [place for place, row in enumerate(rows) if row is not None]
    taken = [row for row in rows if row is not None]
    for name, parameter in old.named_parameters():
        getattr(new, name)[places] = parameter[taken]
        getattr(new, name).requires_grad_(parameter.requires_grad)
    return new.train(old.training)
