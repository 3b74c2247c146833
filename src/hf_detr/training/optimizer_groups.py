"""Groups the parameters of a model for the optimizer, because parts of a DETR model learn at their own rates."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    multipliers: Mapping[str, float],
    decay_biases_and_norms: bool = True,
) -> list[dict[str, Any]]:
    """Group the trainable parameters of `model` by learning rate.

    Args:
        model: the model to train; parameters that need no gradient are left out.
        learning_rate: the base rate.
        weight_decay: the weight decay of the parameters.
        multipliers: factors on `learning_rate`, each with a part of the names of its parameters. Where several parts
            occur in a name, the first in the order of the mapping counts. A name in which none occurs gets factor 1.
        decay_biases_and_norms: whether parameters of one dimension decay too, as in published DETR models.

    Returns:
        groups for a torch optimizer. A group of factor 1 comes first, because the Trainer reports the rate of the
        first.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, weight_decay): []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = next((factor for part, factor in multipliers.items() if part in name), 1.0)
        decay = weight_decay if decay_biases_and_norms or parameter.ndim > 1 else 0.0
        groups.setdefault((float(factor), decay), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
        if parameters
    ]


def report_frozen_class_heads(model: nn.Module) -> None:
    """Warn when the class heads of a model are not trained, as an adapter (LoRA) leaves them unless told otherwise."""
    heads = [parameter for name, parameter in model.named_parameters() if ".class_head." in name]
    if heads and not any(parameter.requires_grad for parameter in heads):
        logger.warning(
            "The class heads are not trained. Where the model was loaded with other classes than it was trained on, "
            "they are random and stay so: with LoRA, write LoraConfig(..., modules_to_save=['heads'])"
        )
