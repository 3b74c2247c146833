"""Layers for CPUs that lay their weights out for oneDNN once, and also compute the sum and the ReLU after them.

Plain layers lay their weights out anew at every call, go over their output again for a ReLU, and add a residual branch
in a pass of its own. The operators used here are the ones that torch's compiler uses for frozen models.
"""

import copy
import operator
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from transformers.utils import logging

from hf_detr.modeling.attention import MLP
from hf_detr.modeling.backbone import Backbone
from hf_detr.modeling.encoder import FeedForward

from .batch_norm_folding import is_equal, small_picture
from .dtypes import is_fast_with_bfloat16
from .passes import Undo, alter

logger = logging.get_logger(__name__)

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, torch.relu_, nn.functional.relu)


class Packed(nn.Module):
    """A layer that keeps its weights as oneDNN wants them, beside the plain ones, which serve everywhere else.

    Attributes:
        activation: the activation that is computed with the layer, "none" or "relu".
    """

    activation: str = "none"
    packed_weight: Tensor | None = None

    def packs(self, states: Tensor) -> bool:
        """Return whether oneDNN computes this: float32, or bfloat16 where the processor has instructions for it."""
        return states.device.type == "cpu" and (
            states.dtype == torch.float32 or (states.dtype == torch.bfloat16 and is_fast_with_bfloat16(states.device))
        )

    def activate(self, states: Tensor) -> Tensor:
        """Return the states after the activation, for layers that oneDNN did not compute together with it."""
        return states.relu_() if self.activation == "relu" else states

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.packed_weight = None  # the layer was moved or got another dtype
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.packed_weight = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "packed_weight": None}  # it can be neither copied nor pickled


class PackedLinear(Packed, nn.Linear):
    """A linear layer and its activation."""

    def forward(self, states: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        if not self.packs(states):
            return self.activate(super().forward(states))
        if self.packed_weight is None:
            self.packed_weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        return torch.ops.mkldnn._linear_pointwise(states, self.packed_weight, self.bias, self.activation, [], "")


class PackedConv2d(Packed, nn.Conv2d):
    """A convolution, the sum with another map, and its activation.

    Attributes:
        overwrites: whether the sum is written into the memory of the other map, which nothing else reads.
    """

    overwrites = False

    def forward(self, maps: Tensor, other: Tensor | None = None) -> Tensor:
        """Convolve maps (B, C, H, W), and add `other` to the result if given; return (B, out_channels, H', W')."""
        if not self.packs(maps):
            states = super().forward(maps)
            return self.activate(states if other is None else states + other)
        rest = self.padding, self.stride, self.dilation, self.groups
        if self.packed_weight is None:
            weight = self.weight.to_mkldnn()
            # The stub of torch lacks the size of the maps, and paddings by name.
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.packed_weight = reorder(weight, *rest, maps.shape)
        arguments = self.packed_weight, self.bias, *rest
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(maps, *arguments, self.activation, [], "")
        add = torch.ops.mkldnn._convolution_pointwise_ if self.overwrites else torch.ops.mkldnn._convolution_pointwise
        first = (other, maps) if self.overwrites else (maps, other)
        # These operators take None in place of "none".
        activation: list[Any] = [self.activation, [], ""] if self.activation == "relu" else [None, [], None]
        return add.binary(*first, *arguments, "add", 1.0, *activation)


class PackedMLP(MLP):
    """Linear layers that compute the ReLU between them as well."""

    def forward(self, states: Tensor) -> Tensor:
        """See `MLP`."""
        for layer in self.layers:
            states = layer(states)
        return states


def has_packed_operators() -> bool:
    """Return whether this build of torch has the operators, which are not part of its public interface."""
    names = ("_linear_pointwise", "_reorder_linear_weight", "_convolution_pointwise", "_convolution_pointwise_")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack(model: nn.Module) -> Undo:
    """Pack the layers of a model in evaluation mode whose norms are folded."""
    with ExitStack() as undos:
        if not has_packed_operators():
            return undos.pop_all().close
        for backbone in list(model.modules()):
            if isinstance(backbone, Backbone):
                undos.callback(alter(backbone, body=fuse_maps(backbone.body, backbone.num_channels)))
        for module in list(model.modules()):
            if type(module) is nn.Linear:
                undos.callback(alter(module, PackedLinear, packed_weight=None))
            elif is_packable(module):
                undos.callback(alter(module, PackedConv2d, packed_weight=None))
        for module in list(model.modules()):
            if type(module) is MLP:
                undos.callback(alter(module, PackedMLP))
                for layer in module.layers[:-1]:
                    undos.callback(alter(layer, activation="relu"))
            elif type(module) is FeedForward and isinstance(module.activation, nn.ReLU):
                undos.callback(alter(module, activation=nn.Identity()))
                undos.callback(alter(module.fc1, activation="relu"))
        return undos.pop_all().close


@torch.no_grad()
def fuse_maps(body: nn.Module, num_channels: int) -> nn.Module:
    """Return a backbone whose convolutions also compute the sum and the ReLU that follow them.

    The backbone is traced, rewritten and compared with itself on a small picture. A backbone that cannot be traced, or
    that gives other maps when rewritten, is returned as it is.
    """
    picture = small_picture(body, num_channels)
    expected = body(picture)
    try:
        fused = rewrite(fx.symbolic_trace(copy.deepcopy(body)))
        found = fused(picture)
    except Exception as error:  # backbones whose computation depends on their input
        logger.debug(f"The convolutions of this backbone keep their activations apart: {error}")
        return body
    return fused if is_equal(found, expected) else body


def rewrite(traced: fx.GraphModule) -> fx.GraphModule:
    """Merge convolutions with what follows them, in place."""
    modules, graph = dict(traced.named_modules()), traced.graph
    for node in list(graph.nodes):
        if kind_of(node, modules) in (nn.Identity, nn.Dropout):
            replace(node, node.args[0])
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        if calls.count(node.target) == 1 and is_packable(modules.get(node.target)):
            modules[node.target].__class__ = PackedConv2d
            merge_activation(merge_sum(node, modules), modules)
    graph.eliminate_dead_code()
    traced.recompile()
    return traced


def merge_sum(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node:
    """Let a convolution compute the sum with another map, if nothing else reads its output; return the last node."""
    addition = only_user(node)
    if addition is None or addition.op != "call_function" or addition.target not in _ADDITIONS or addition.kwargs:
        return node
    other = next((value for value in addition.args if value is not node), None)
    if not isinstance(other, fx.Node):
        return node
    is_fresh = kind_of(other, modules) in (nn.Conv2d, PackedConv2d)
    convolution = called(node, modules)
    if isinstance(convolution, PackedConv2d):
        convolution.overwrites = is_fresh and only_user(other) is addition
    with node.graph.inserting_before(addition):
        merged = node.graph.call_module(str(node.target), (node.args[0], other))
    replace(addition, merged)
    node.graph.erase_node(node)
    return merged


def merge_activation(node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Let a convolution compute the ReLU that follows it, if nothing else reads the output of the convolution."""
    user, convolution = only_user(node), called(node, modules)
    if user is None or not isinstance(convolution, PackedConv2d):
        return
    if kind_of(user, modules) is nn.ReLU or user.target in _RELUS:
        convolution.activation = "relu"
        replace(user, node)


def called(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return modules[str(node.target)] if node.op == "call_module" else None


def kind_of(node: fx.Node, modules: dict[str, nn.Module]) -> type | None:
    """Return the class of the module that a node calls, or None."""
    module = called(node, modules)
    return None if module is None else type(module)


def is_packable(module: nn.Module | None) -> bool:
    """Return whether a module is a convolution that oneDNN knows: a plain one that pads with zeros."""
    return type(module) is nn.Conv2d and isinstance(module.padding, tuple) and module.padding_mode == "zeros"


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads another, or None when there is none or several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def replace(node: fx.Node, by: fx.Node) -> None:
    """Let everybody read another node instead."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
