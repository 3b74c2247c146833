"""Predictions, and what they are taught.

Every part that predicts returns a `PredictionGroup`: its predictions, the objects they should have found, and how they
are matched to them. The criterion matches the groups and computes the same terms for each.

Shapes: L layers, B batch, Q queries, T objects (padded), K classes.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .targets import Matches, Targets


@dataclass
class Predictions:
    """What queries answered, layer by layer.

    Attributes:
        logits: (L, B, Q, K).
        boxes: (L, B, Q, 4) normalised cxcywh.
    """

    logits: Tensor
    boxes: Tensor

    def queries(self, part: slice) -> "Predictions":
        """The predictions of some of the queries."""
        return Predictions(self.logits[:, :, part], self.boxes[:, :, part])

    def in_full_precision(self) -> "Predictions":
        """The same in at least float32."""
        return Predictions(*(values.to(torch.promote_types(values.dtype, torch.float32)) for values in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        """All that was predicted."""
        return self.logits, self.boxes


@dataclass
class PredictionGroup:
    """Predictions that are supervised together.

    Attributes:
        name: of the group in the names of its loss terms; empty for the queries that exist at inference too.
        predictions: of one layer or of several.
        targets: the objects that should be found.
        matching: the matches, where they are known; None where the criterion finds them, by the least cost.
        copies: how often `targets` hold each object of the images. An object that should be found by n queries stands
            n times in `targets`. The terms are divided by as many objects more.
        supervised: (B, Q), False for queries whose class does not count, or None where all count.
        weight: factor of all terms of the group in the sum.
    """

    name: str
    predictions: Predictions
    targets: Targets
    matching: Matches | None = None
    copies: int = 1
    supervised: Tensor | None = None
    weight: float = 1.0

    @property
    def suffixes(self) -> list[str]:
        """What the names of the terms of each layer end in: its number, and nothing for the last layer."""
        name = f"_{self.name}" if self.name else ""
        return [f"{name}_{layer}" for layer in range(len(self.predictions.logits) - 1)] + [name]


@dataclass
class MatchedGroup:
    """A group whose matches are known: what a term of the loss is computed from.

    Attributes:
        predictions: of the group, in at least float32.
        targets: the objects.
        matches: the query of each of these objects.
        num_boxes: what terms are divided by: the number of objects of the batch or of a whole optimiser step.
        num_images: the number of images that `num_boxes` was counted over; None for the images of this batch.
        supervised: as in `PredictionGroup`.
    """

    predictions: Predictions
    targets: Targets
    matches: Matches
    num_boxes: Tensor | float
    num_images: Tensor | float | None = None
    supervised: Tensor | None = None

    @cached_property
    def slots(self) -> Tensor:
        """(L, B, T) matched query of each object; Q, one past the last query, where there is none."""
        layers, _, num_queries, _ = self.predictions.logits.shape
        return self.matches.query_index.masked_fill(~self.matches.matched, num_queries).expand(layers, -1, -1)

    @cached_property
    def matched(self) -> Tensor:
        """(L, B, T) whether each object has a query."""
        return self.matches.matched.expand(len(self.predictions.logits), -1, -1)

    @cached_property
    def matched_boxes(self) -> Tensor:
        """(L, B, T, 4) predicted box of each object; meaningless where not matched."""
        index = self.slots.clamp(max=self.predictions.boxes.shape[2] - 1)
        return self.predictions.boxes.gather(2, index[..., None].expand(-1, -1, -1, 4))

    @cached_property
    def wanted_boxes(self) -> Tensor:
        """(L, B, T, 4) box of each object."""
        return self.targets.boxes.to(self.matched_boxes).expand_as(self.matched_boxes)

    def per_object(self, values: Tensor) -> Tensor:
        """(L, B, T) values of the objects → (L,) their sums over those matched, divided by `num_boxes`."""
        # where, not a product: a padded slot may hold a NaN
        return torch.where(self.matched, values, 0.0).flatten(1).sum(-1) / self.num_boxes
