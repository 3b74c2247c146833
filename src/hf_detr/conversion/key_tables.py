"""Applying a key table: every key of a foreign checkpoint is renamed, split or merged, or the conversion fails.

A table is data: an ordered list of (pattern, replacement). The pattern is a regular expression for a whole key; the
replacement is one name, several names (the tensor is cut into that many equal parts along a dimension), or None
(the tensor is a copy of another, or a counter that our layout does without).
"""

import re
from dataclasses import dataclass

from torch import Tensor, nn


class ConversionError(ValueError):
    """A checkpoint whose keys do not fit the model."""


@dataclass(frozen=True)
class Rule:
    """One line of a key table.

    Attributes:
        pattern: regular expression that matches the whole key.
        names: what it becomes, with the groups of the pattern; several names cut the tensor; none drops it.
        dim: the dimension that is cut.
    """

    pattern: str
    names: tuple[str, ...]
    dim: int = 0


def rule(pattern: str, *names: str, dim: int = 0) -> Rule:
    """A line of a table, spelled briefly."""
    return Rule(pattern, names, dim)


def convert_state_dict(state_dict: dict[str, Tensor], table: list[Rule], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint to those of the model.

    Args:
        state_dict: the foreign tensors.
        table: the rules; the first that matches a key is used.
        model: what the result is for; it is not changed (it may be on the meta device).

    Returns:
        A state dict with exactly the keys and shapes of `model.state_dict()`.

    Raises:
        ConversionError: listing keys that no rule knows or the model has no place for, keys of the model that the
            checkpoint does not fill, and tensors of another shape.
    """
    converted, unknown = {}, []
    compiled = [(re.compile(line.pattern), line) for line in table]
    for key, tensor in state_dict.items():
        for pattern, line in compiled:
            match = pattern.fullmatch(key)
            if match:
                parts = tensor.chunk(len(line.names), line.dim) if line.names else ()
                converted |= {match.expand(name): part for name, part in zip(line.names, parts, strict=True)}
                break
        else:
            unknown.append(key)
    wanted = model.state_dict()
    for key in wanted:  # counters that no published layout stores and no computation reads
        if key.endswith("num_batches_tracked") and key not in converted:
            converted[key] = wanted[key].new_zeros(()).to("cpu") if wanted[key].is_meta else wanted[key]
    _check(converted, unknown, wanted)
    return converted


def _check(converted: dict[str, Tensor], unknown: list[str], wanted: dict[str, Tensor]) -> None:
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
    }
    if any(problems.values()):
        lines = [f"{title} ({len(keys)}): {', '.join(keys)}" for title, keys in problems.items() if keys]
        raise ConversionError("The checkpoint does not fit the model.\n" + "\n".join(lines))
