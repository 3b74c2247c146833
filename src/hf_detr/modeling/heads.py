"""Decoder states → class logits and boxes.

Shapes: B batch, Q queries, D width, K classes (one more, "no object", with a softmax).
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention import MLP
from .boxes import inverse_sigmoid
from .configuration import HfDetrConfig


class DetectionHeads(nn.Module):
    """Class and box heads, `copies` of each: one for all layers, or one per layer.

    With `class_agnostic` the first class means "any object", whatever the classes are called.

    Boxes are predicted relative to the reference of the query, in logit space, in at least float32.
    """

    def __init__(self, config: HfDetrConfig, copies: int, class_agnostic: bool = False):
        super().__init__()
        self.class_agnostic = class_agnostic
        num_classes = len(config.class_names) + (config.classification == "softmax")
        self.class_head = nn.ModuleList(nn.Linear(config.d_model, num_classes) for _ in range(copies))
        self.box_head = nn.ModuleList(MLP(config.d_model, config.d_model, 4, 3) for _ in range(copies))
        self.eps = config.inverse_sigmoid_eps
        self.sigmoid_classes = config.classification != "softmax"
        self.has_reference = config.query_reference != "none"
        self.guess_size = config.cross_attention == "deformable" and config.query_reference in ("point", "box")

    def initialise(self) -> None:
        """A first guess: every class improbable (prior 0.01), boxes on their references.

        The first boxes of Deformable DETR are small: beside a point, sigmoid(-2) = 0.12 of the image.
        """
        for class_head in self.class_head:
            if isinstance(class_head, nn.Linear):
                self.initialise_classes(class_head)
        for index, box_head in enumerate(self.box_head):
            if self.has_reference and isinstance(box_head, MLP):
                size, last = -2.0 if self.guess_size and index == 0 else 0.0, box_head.last
                init.zeros_(last.weight)
                init.copy_(last.bias, torch.tensor([0.0, 0.0, size, size]).to(last.bias))

    def initialise_classes(self, head: nn.Linear) -> None:
        """The bias of a class head, where classes have a prior."""
        if self.sigmoid_classes:
            init.constant_(head.bias, -math.log((1 - 0.01) / 0.01))

    def logits(self, layer_index: int, states: Tensor) -> Tensor:
        """(B, Q, D) → (B, Q, K)."""
        return self.class_head[layer_index % len(self.class_head)](states)

    def box_logits(self, layer_index: int, states: Tensor) -> Tensor:
        """(B, Q, D) → (B, Q, 4) offsets from the reference in logit space, at least float32."""
        offsets = self.box_head[layer_index % len(self.box_head)](states)
        return offsets.to(torch.promote_types(offsets.dtype, torch.float32))

    def boxes(self, layer_index: int, states: Tensor, reference_points: Tensor | None) -> Tensor:
        """(B, Q, D) states and their (B, Q, 2 or 4) references → (B, Q, 4) normalised cxcywh boxes."""
        offsets = self.box_logits(layer_index, states)
        if reference_points is None:
            return offsets.sigmoid()
        reference = inverse_sigmoid(reference_points, self.eps)
        if reference.shape[-1] == 2:
            reference = nn.functional.pad(reference, (0, 2))
        return (offsets + reference).sigmoid()
