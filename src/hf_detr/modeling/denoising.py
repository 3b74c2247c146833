"""Noised ground truth as extra queries in training: DN-DETR (Li et al. 2022) and DINO (Zhang et al. 2022).

The extra queries come first: groups of noised copies of an image's objects, padded to the largest number of objects
in the batch. Because each knows its object, no matching is needed. A contrastive group holds the copies twice: the
first half, little moved, must find its object; the second, moved further, must answer "no object".

Shapes: B batch, G groups, T objects (padded), R = G·T or 2·G·T denoising queries, Q matching queries, D width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, inverse_sigmoid
from .configuration import HfDetrConfig
from .queries import Queries, content_width
from .supervision import PredictionGroup, Predictions
from .targets import Matches, Targets
from .training_queries import TrainingQueries


@dataclass
class Noise:
    """The random numbers of one batch, each for (B, copies, T) objects; contrastive groups are two copies each.

    Attributes:
        label_chance: uniform in [0, 1); small ones replace the label.
        label: the replacement, 0…K-1.
        box: (…, 4) uniform in [0, 1).
        box_sign: (…, 4) -1 or 1, for contrastive noise.
    """

    label_chance: Tensor
    label: Tensor
    box: Tensor
    box_sign: Tensor


def draw_noise(targets: Targets, copies: int, num_labels: int) -> Noise:
    """Fresh noise on the device of the targets, from torch's default generator."""
    batch, objects = targets.valid.shape
    device, dtype = targets.boxes.device, targets.boxes.dtype
    shape = (batch, copies, objects)
    return Noise(
        label_chance=torch.rand(shape, device=device),
        label=torch.randint(0, num_labels, shape, device=device),
        box=torch.rand((*shape, 4), device=device, dtype=dtype),
        box_sign=torch.randint(0, 2, (*shape, 4), device=device, dtype=dtype) * 2 - 1,
    )


def repeat(targets: Targets, times: int) -> Targets:
    """Every object `times` times: (B, times·T)."""
    return Targets(
        targets.class_labels.repeat(1, times),
        targets.boxes.repeat(1, times, 1),
        targets.valid.repeat(1, times),
        [count * times for count in targets.counts],
        targets.image_ids,
    )


class Denoising(nn.Module):
    """Puts denoising queries before the matching queries.

    DN-DETR describes a query's label in all but one feature; the last one tells denoising (1) from matching (0)
    queries, and matching queries without a content of their own start from the label "unknown".
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__()
        self.contrastive = config.denoising == "contrastive"
        self.num_denoising, self.num_labels = config.num_denoising, len(config.class_names)
        # DINO replaces half as many labels as its ratio says
        self.label_noise = config.label_noise_ratio * (0.5 if self.contrastive else 1.0)
        self.box_noise = config.box_noise_scale
        self.eps = config.inverse_sigmoid_eps
        self.content_is_label = not self.contrastive and config.query_content == "zeros"
        self.label_embedding = nn.Embedding(self.num_labels + 1, content_width(config))

    def forward(self, queries: Queries, targets: Targets | None) -> Queries:
        """Complete the matching queries and, given targets, put denoising queries before them."""
        if not self.contrastive:
            content = queries.content
            if self.content_is_label:
                content = self.label_embedding.weight[self.num_labels].expand_as(content)
            queries.content = nn.functional.pad(content, (0, 1))
        if targets is None or self.num_denoising == 0:
            return queries
        if targets.valid.shape[1] == 0:  # no object in the batch: keep the embedding in every rank's graph
            queries.content = queries.content + 0.0 * self.label_embedding.weight.sum()
            return queries
        num_groups = self.num_groups(targets.valid.shape[1])
        noise = draw_noise(targets, num_groups * (1 + self.contrastive), self.num_labels)
        return self.extend(queries, targets, noise, num_groups)

    def num_groups(self, objects: int) -> int:
        """Contrastive groups get fewer the more objects there are, to keep the number of queries near its aim."""
        return max(1, self.num_denoising // objects) if self.contrastive else self.num_denoising

    def noised_labels(self, targets: Targets, noise: Noise) -> Tensor:
        """(B, copies, T) labels, some replaced at random."""
        return torch.where(noise.label_chance < self.label_noise, noise.label, targets.class_labels[:, None])

    def noised_boxes(self, targets: Targets, noise: Noise) -> Tensor:
        """(B, copies, T, 4) boxes, cxcywh, moved and scaled by at most their size times the noise scale.

        Contrastive noise moves the sides by up to half the size, in the negative copies by half to one size.
        """
        boxes = targets.boxes[:, None]
        if not self.contrastive:
            reach = torch.cat([boxes[..., 2:] / 2, boxes[..., 2:]], dim=-1)
            return (boxes + (noise.box * 2 - 1) * reach * self.box_noise).clamp(0, 1)
        reach = (boxes[..., 2:] / 2).repeat(1, 1, 1, 2)
        negative = torch.arange(noise.box.shape[1], device=boxes.device).view(1, -1, 1, 1) % 2
        moved = box_cxcywh_to_xyxy(boxes) + noise.box_sign * (noise.box + negative) * reach * self.box_noise
        return box_xyxy_to_cxcywh(moved.clamp(0, 1))

    def extend(self, queries: Queries, targets: Targets, noise: Noise, num_groups: int) -> Queries:
        """The denoising queries followed by the matching queries; padding slots are empty and in the middle."""
        valid = targets.valid[:, None, :, None]
        content = self.label_embedding(self.noised_labels(targets, noise))
        if not self.contrastive:
            content = nn.functional.pad(content, (0, 1), value=1.0)
        content = content.masked_fill(~valid, 0.0).flatten(1, 2)
        references = inverse_sigmoid(self.noised_boxes(targets, noise), self.eps).sigmoid()
        references = references.masked_fill(~valid, 0.5).flatten(1, 2)
        assert queries.reference_points is not None  # the configuration refuses denoising without references
        queries.content = torch.cat([content.to(queries.content.dtype), queries.content], dim=1)
        queries.reference_points = torch.cat([references.to(queries.reference_points), queries.reference_points], 1)
        supervise = partial(self.supervise, targets, num_groups)
        queries.training.insert(0, TrainingQueries(content.shape[1], num_groups, supervise))
        return queries

    def supervise(self, targets: Targets, num_groups: int, predictions: Predictions) -> PredictionGroup:
        """The group of the denoising queries.

        The positive copies find their objects. What pads a group of DN-DETR is not supervised.
        """
        batch, objects = targets.valid.shape
        copies = 1 + self.contrastive
        repeated = repeat(targets, num_groups)
        groups = torch.arange(num_groups, device=targets.boxes.device)[:, None] * (objects * copies)
        query_index = (groups + torch.arange(objects, device=groups.device)).flatten().expand(1, batch, -1)
        matches = Matches(query_index, repeated.valid[None])
        supervised = None if self.contrastive else repeated.valid
        return PredictionGroup("dn", predictions, repeated, matches, copies=num_groups, supervised=supervised)
