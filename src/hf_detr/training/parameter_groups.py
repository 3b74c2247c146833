"""Optimizer parameter groups: parts of a DETR model learn at their own rates."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, multipliers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Group the trainable parameters of `model` by learning rate.

    Args:
        model: the model to train; parameters that need no gradient are left out.
        learning_rate: the base rate.
        weight_decay: applied to every parameter, biases and norms included, as published DETR models do.
        multipliers: substring of a parameter's name -> factor on `learning_rate`. The first substring in the order
            of the mapping that occurs in a name counts; names without one get factor 1.

    Returns:
        groups for a torch optimizer, that of factor 1 first: its rate is the one the Trainer reports.
    """
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = next((factor for part, factor in multipliers.items() if part in name), 1.0)
        by_factor.setdefault(float(factor), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": weight_decay}
        for factor, parameters in by_factor.items()
        if parameters
    ]
