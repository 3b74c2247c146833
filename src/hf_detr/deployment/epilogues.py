"""What follows each convolution of a backbone and can be computed with it: the sum with another map, the ReLU."""

import operator
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import fx, nn

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, torch.relu_, nn.functional.relu)


@dataclass
class Epilogue:
    """What a convolution computes besides itself.

    Attributes:
        activation: "none" or "relu".
        adds: the sum with a second map, which it is called with, comes before the activation.
        overwrites: that map is read by nobody else and may take the sum.
    """

    activation: str = "none"
    adds: bool = False
    overwrites: bool = False


def merge_epilogues(
    traced: fx.GraphModule, passing: Collection[type], among: Collection[nn.Module] | None = None
) -> dict[nn.Conv2d, Epilogue]:
    """Take the sums and ReLUs that follow convolutions out of a graph, in place.

    Args:
        traced: a backbone.
        passing: classes of modules that give what they get.
        among: the convolutions that can compute more; all without it.

    Returns:
        those of them that oneDNN knows and that are called once, and what each has to compute now. Those with `adds`
        are called with the other map as a second argument.
    """
    modules, graph = dict(traced.named_modules()), traced.graph
    for node in list(graph.nodes):
        if kind_of(node, modules) in passing:
            replace(node, node.args[0])
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    epilogues = {}
    for node in list(graph.nodes):
        module = modules.get(node.target)
        if is_packable(module) and calls.count(node.target) == 1 and (among is None or module in among):
            epilogue = epilogues[module] = Epilogue()
            merge_activation(merge_sum(node, modules, epilogue), modules, epilogue)
    graph.eliminate_dead_code()
    traced.recompile()
    return epilogues


def merge_sum(node: fx.Node, modules: dict[str, nn.Module], epilogue: Epilogue) -> fx.Node:
    """Let a convolution bring the sum with another map, if one follows and nobody else reads it; return its node."""
    addition = only_user(node)
    if addition is None or addition.op != "call_function" or addition.target not in _ADDITIONS or addition.kwargs:
        return node
    other = next((value for value in addition.args if value is not node), None)
    if not isinstance(other, fx.Node):
        return node
    epilogue.adds = True
    epilogue.overwrites = kind_of(other, modules) is nn.Conv2d and only_user(other) is addition
    with node.graph.inserting_before(addition):
        merged = node.graph.call_module(node.target, (node.args[0], other))
    replace(addition, merged)
    node.graph.erase_node(node)
    return merged


def merge_activation(node: fx.Node, modules: dict[str, nn.Module], epilogue: Epilogue) -> None:
    """Let a convolution bring the ReLU, if one follows and nobody else reads what it is of."""
    user = only_user(node)
    if user is not None and (kind_of(user, modules) is nn.ReLU or user.target in _RELUS):
        epilogue.activation = "relu"
        replace(user, node)


def kind_of(node: fx.Node, modules: dict[str, nn.Module]) -> type | None:
    """The class of the module that a node calls."""
    return type(modules[node.target]) if node.op == "call_module" else None


def is_packable(module: nn.Module | None) -> bool:
    """Whether a module is a convolution that oneDNN knows: plain, with padding in zeros."""
    return type(module) is nn.Conv2d and isinstance(module.padding, tuple) and module.padding_mode == "zeros"


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads another, or None when there are none or several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def replace(node: fx.Node, by: fx.Node) -> None:
    """Let everybody read another node instead."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
