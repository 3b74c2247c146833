"""Frozen batch norms as part of the convolutions before them, while a model trains.

A frozen norm only scales and shifts, so a convolution with scaled weights does both at once: a pass over the maps less
in either direction, and nothing to keep for the norm's gradient. The weights themselves stay what they are, are scaled
anew in each step, and receive their gradient through the scale. On a CPU the convolution brings the sum with the
residual branch and the ReLU as well, where these follow.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers.norm_act import FrozenBatchNorm2d, FrozenBatchNormAct2d
from torch import Tensor, fx, nn
from transformers.utils import logging

from hf_detr.deployment.epilogues import Epilogue, merge_epilogues, replace
from hf_detr.deployment.folding import feeding_convolutions, is_equal, small_picture
from hf_detr.deployment.packing import has_packed_operators
from hf_detr.modeling.backbone import Backbone

from .convolution import convolve

logger = logging.get_logger(__name__)

FROZEN_NORMS = (FrozenBatchNorm2d, FrozenBatchNormAct2d)


def fold_frozen_norms(model: nn.Module) -> Callable[[], None]:
    """Let the convolutions of a model's backbones do the work of the frozen norms after them.

    Where the maps would be others (an output of a convolution that someone else reads as well), nothing is changed.

    Returns:
        what undoes it.
    """
    folded: list[nn.Module] = []
    for backbone in model.modules():
        if isinstance(backbone, Backbone):
            folded += fold_frozen_norms_of(backbone.body, backbone.num_channels)
    return partial(unfold, folded)


@torch.no_grad()
def fold_frozen_norms_of(body: nn.Module, num_channels: int) -> list[nn.Module]:
    """Fold the frozen norms of one backbone; return the modules that compute otherwise now."""
    if not any(isinstance(module, FROZEN_NORMS) for module in body.modules()):
        return []
    was_training = body.training
    body.eval()
    picture = small_picture(body, num_channels)
    expected = body(picture)
    pairs = {
        norm: convolution
        for norm, convolution in feeding_convolutions(body, picture).items()
        if isinstance(norm, FROZEN_NORMS) and type(convolution) is nn.Conv2d
    }
    folded: list[nn.Module] = []
    for attempt in (merge, fold):
        folded = attempt(body, pairs)
        if folded and is_equal(body(picture), expected):
            break
        unfold(folded)
        folded = []
    body.train(was_training)
    return folded


def fold(body: nn.Module, pairs: dict[nn.Module, nn.Conv2d], epilogues: dict | None = None) -> list[nn.Module]:
    """Let convolutions compute their norms, and what else `epilogues` says; return the changed modules."""
    for norm, convolution in pairs.items():
        epilogue = (epilogues or {}).get(convolution, Epilogue())
        convolution.forward = partial(convolve_and_norm, convolution, norm, epilogue)
        norm.forward = partial(after_norm, norm)
    return [module for pair in pairs.items() for module in pair]


def merge(body: nn.Module, pairs: dict[nn.Module, nn.Conv2d]) -> list[nn.Module]:
    """As `fold`, with sums and ReLUs; nothing is changed where oneDNN or a graph of the backbone is missing."""
    if next(body.parameters()).device.type != "cpu" or not has_packed_operators():
        return []
    traced = trace(body)
    if traced is None:
        return []
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if norm in pairs and not carries_activation(norm):
            replace(node, node.args[0])
    epilogues = merge_epilogues(traced, passing=(nn.Identity,), among=set(pairs.values()))
    body.forward = traced.forward
    return [body, *fold(body, pairs, epilogues)]


class Tracer(fx.Tracer):
    """Frozen norms are modules of the graph, as those of torch are."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether a module is not looked into."""
        return isinstance(module, FROZEN_NORMS) or super().is_leaf_module(module, name)


def trace(body: nn.Module) -> fx.GraphModule | None:
    """The graph of a backbone, or None if it depends on the mode or the input; it is in evaluation mode then."""
    graphs = []
    for mode in (True, False):
        body.train(mode)
        try:
            graphs.append(fx.GraphModule(body, Tracer().trace(body)))
        except Exception as error:
            logger.debug(f"The convolutions of this backbone keep their activations apart: {error}")
            body.eval()
            return None
    return graphs[0] if graphs[0].code == graphs[1].code else None


def carries_activation(norm: nn.Module) -> bool:
    """Whether a norm of timm's does more than scale and shift."""
    return any(not isinstance(getattr(norm, name, None), nn.Identity | None) for name in ("drop", "act"))


def unfold(modules: list[nn.Module]) -> None:
    """Let the modules compute again as their classes say."""
    for module in modules:
        module.__dict__.pop("forward", None)


def convolve_and_norm(
    convolution: nn.Conv2d, norm: nn.Module, epilogue: Epilogue, maps: Tensor, other: Tensor | None = None
) -> Tensor:
    """(B, C, H, W) → the map behind a convolution, the frozen norm that follows it, and its epilogue."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale[:, None, None, None]
    return convolve(convolution, maps, weight, shift, other, epilogue.activation)


def after_norm(norm: nn.Module, states: Tensor) -> Tensor:
    """What timm's norms carry besides the norm: the activation that follows."""
    return norm.act(norm.drop(states)) if isinstance(norm, FrozenBatchNormAct2d) else states
