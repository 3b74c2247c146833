"""Applies a key table: every key of a foreign checkpoint is renamed, cut or dropped, or the conversion fails.

A table is data: an ordered list of (pattern, replacement). The pattern is a regular expression for a whole key; the
replacement is one name, several names (the tensor is cut into that many equal parts along a dimension), or none
(the tensor is a copy of another, or a counter that our layout does without). Keys that become the same name must hold
the same values.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class ConversionError(ValueError):
    """A checkpoint whose keys do not fit the model."""


@dataclass(frozen=True)
class Rule:
    """One line of a key table.

    Attributes:
        pattern: the regular expression that matches the whole key.
        names: the new names, with the groups of the pattern. Several names cut the tensor, and no name drops it.
        dim: the dimension along which the tensor is cut.
    """

    pattern: str
    names: tuple[str, ...]
    dim: int = 0


def rule(pattern: str, *names: str, dim: int = 0) -> Rule:
    """Return a line of a table; a short way to write a `Rule`."""
    return Rule(pattern, names, dim)


def convert_state_dict(state_dict: dict[str, Tensor], table: list[Rule], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint as the model names them.

    Args:
        state_dict: the foreign tensors.
        table: the rules, of which the first that matches a key is used.
        model: the model that the result is for. It is not changed, and may be on the meta device.

    Returns:
        A state dict with exactly the keys and shapes of `model.state_dict()`.

    Raises:
        ConversionError: listing keys that no rule knows or the model has no place for, keys of the model that the
            checkpoint does not fill, tensors of another shape, and copies of one tensor that differ.
    """
    converted: dict[str, Tensor] = {}
    unknown: list[str] = []
    contradictory: list[str] = []
    compiled = [(re.compile(line.pattern), line) for line in table]
    for key, tensor in state_dict.items():
        renamed = _apply(compiled, key, tensor)
        if renamed is None:
            unknown.append(key)
            continue
        contradictory += [
            f"{key} ({name})" for name in renamed if name in converted and not converted[name].equal(renamed[name])
        ]
        converted |= renamed
    wanted = model.state_dict()
    for key in wanted:  # counters that no published layout stores and no computation reads
        if key.endswith("num_batches_tracked") and key not in converted:
            converted[key] = torch.zeros_like(wanted[key], device="cpu")
    _check(converted, unknown, contradictory, wanted)
    return converted


def _apply(compiled: list[tuple[re.Pattern, Rule]], key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """Return what one tensor becomes by the first rule that matches its key, or None when no rule does."""
    for pattern, line in compiled:
        match = pattern.fullmatch(key)
        if match is None:
            continue
        if len(line.names) < 2:
            return {match.expand(name): tensor for name in line.names}
        parts = tensor.tensor_split(len(line.names), line.dim)
        return {match.expand(name): part.clone() for name, part in zip(line.names, parts, strict=True)}
    return None


def _check(
    converted: dict[str, Tensor], unknown: list[str], contradictory: list[str], wanted: dict[str, Tensor]
) -> None:
    wrong_shape = [
        f"{key} is {tuple(converted[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in converted and converted[key].shape != wanted[key].shape
    ]
    problems = {
        "Keys of the checkpoint that are not understood": unknown,
        "Keys of the checkpoint that this model has no place for": sorted(set(converted) - set(wanted)),
        "Keys of the model that the checkpoint does not fill": sorted(set(wanted) - set(converted)),
        "Tensors of another shape": wrong_shape,
        "Copies of one tensor that differ": contradictory,
    }
    if any(problems.values()):
        lines = [f"{title} ({len(keys)}): {', '.join(keys)}" for title, keys in problems.items() if keys]
        raise ConversionError("The checkpoint does not fit the model.\n" + "\n".join(lines))
