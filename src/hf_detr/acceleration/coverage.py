"""Finds attentions and norms of an optimised model that no pass knows, so that a slower new class is noticed."""

from collections import Counter

from torch import nn

from hf_detr.modeling.attention import CrossAttention
from hf_detr.modeling.backbone import Backbone
from hf_detr.modeling.conditional_attention import ConditionalCrossAttention
from hf_detr.modeling.encoder import FeedForward
from hf_detr.modeling.query_selection import SelectedQueries

from .projection_fusion import FUSED
from .shape_cache import ConstantAnchorQueries, ConstantSelfAttention

LEFT_APART: dict[type[nn.Module], str] = {
    FeedForward: "its second layer reads the output of its first",
    CrossAttention: "queries, keys and values are made of three different tensors",
    ConditionalCrossAttention: "the spatial keys serve the first layer twice; its products over the memory stay apart",
    ConstantSelfAttention: "it holds the attention that it computes once",
    SelectedQueries: "one layer reads the tokens, the other the boxes selected from them",
    ConstantAnchorQueries: "its layers are the layers of SelectedQueries",
}
"""Classes with several linear layers, or with the word attention in their name, that no pass has to fuse, and why."""
MEASURED_ANEW = (nn.LayerNorm, nn.GroupNorm)
"""Norms whose statistics depend on the input, so that there is nothing to fold."""


def unoptimised(model: nn.Module) -> dict[str, int]:
    """Return the classes of attentions and norms in an optimised model that no pass knows, with their module counts.

    Inside the timm model of a backbone only batch norms count. Everywhere else these count: modules with an attention
    or a norm in the name of their class, and modules with several linear layers of their own.
    """
    bodies = [backbone.body for backbone in model.modules() if isinstance(backbone, Backbone)]
    inside = {id(module) for body in bodies for module in body.modules()}
    found: Counter[str] = Counter()
    for module in model.modules():
        if hasattr(module, "running_var") or (id(module) not in inside and not _is_known(module)):
            found[type(module).__name__] += 1
    return dict(found)


def _is_known(module: nn.Module) -> bool:
    """Return whether a module outside of a backbone is optimised, accounted for, or neither attention nor norm."""
    kind, name = type(module), type(module).__name__.lower()
    if isinstance(module, nn.ModuleList | nn.Sequential):  # containers, whose layers are parts of the module above
        return True
    layers = sum(isinstance(child, nn.Linear) for child in module.children())
    if layers > 1 or "attention" in name:
        return kind in LEFT_APART or kind in FUSED.values()
    return "norm" not in name or isinstance(module, MEASURED_ANEW)
