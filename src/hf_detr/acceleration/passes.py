"""Defines the shape of every pass: it is applied to a model, changes modules in place, and returns its undo.

A pass changes a module by giving it another class and other attributes, and in no other way. So hooks stay with the
module, parameters that a pass does not name stay the same objects under the same names, and the undo can put back
exactly what was there.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn

Undo = Callable[[], None]
"""A function that puts back what a pass changed. Passes that were applied later have to be undone first."""
Pass = Callable[[nn.Module], Undo]
"""A function that changes a model in place, so that it computes the same faster."""

REMOVED: Any = object()
"""The value of an attribute that `alter` takes away."""
_ABSENT = object()
_REGISTRIES = ("_parameters", "_buffers", "_modules")


def apply_passes(model: nn.Module, passes: Iterable[Pass]) -> Undo:
    """Apply passes one after the other; where one raises, those before it are undone.

    Returns:
        the function that undoes all of them, the last one first.
    """
    with ExitStack() as undos:
        for one_pass in passes:
            undos.callback(one_pass(model))
        return undos.pop_all().close


def alter(module: nn.Module, becomes: type[nn.Module] | None = None, **attributes: Any) -> Undo:
    """Give a module another class and other attributes; `REMOVED` takes an attribute away.

    Parameters, buffers and submodules among the attributes are registered as usual. A module that a pass only wants
    to refer to is given inside a tuple, which is not registered.

    Returns:
        the function that puts back the class, the attributes and the order of the parameters, buffers and submodules.
    """
    old_class = module.__class__
    registries = {name: dict(module.__dict__[name]) for name in _REGISTRIES}
    plain = {name: module.__dict__.get(name, _ABSENT) for name in attributes}
    for name, value in attributes.items():
        if value is REMOVED:
            delattr(module, name)
        else:
            setattr(module, name, value)
    changed = [name for name in _REGISTRIES if attributes.keys() & (registries[name].keys() | module.__dict__[name])]
    if becomes is not None:
        module.__class__ = becomes

    def undo() -> None:
        module.__class__ = old_class
        for registry in changed:
            module.__dict__[registry].clear()
            module.__dict__[registry].update(registries[registry])
        for name, value in plain.items():
            module.__dict__.pop(name, None)
            if value is not _ABSENT:
                module.__dict__[name] = value

    return undo
