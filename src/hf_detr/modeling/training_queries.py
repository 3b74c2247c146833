"""Queries that exist in training only, such as denoising queries: which of them see each other, and what they learn.

Shapes: Q queries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .supervision import PredictionGroup, Predictions


@dataclass
class TrainingQueries:
    """Queries that exist in training only, and how they are supervised.

    Attributes:
        num_queries, num_groups: how many they are, and in how many groups of equal size; no group sees another.
        supervise: makes a prediction group of their predictions.
    """

    num_queries: int
    num_groups: int
    supervise: Callable[[Predictions], PredictionGroup]


def group_mask(parts: list[TrainingQueries], num_queries: int, device: torch.device) -> Tensor:
    """(1, 1, Q, Q), True where a query may attend to another; the `parts` come first among the `num_queries`.

    Every query sees its own group, and the queries of inference. No one else sees another group: neither the
    ground truth nor what is absent at inference can leak into the predictions.
    """
    groups, num_groups = [], 0
    for part in parts:
        size = part.num_queries // part.num_groups
        groups.append(torch.arange(part.num_queries, device=device) // size + num_groups)
        num_groups += part.num_groups
    num_own = num_queries - sum(part.num_queries for part in parts)
    group = torch.cat([*groups, torch.full((num_own,), num_groups, device=device)])
    return ((group[:, None] == group) | (group == num_groups))[None, None]
