"""Predictions ↔ ground truth: one bipartite matching per layer and image, all costs in one batch.

Shapes: L layers, B batch, Q queries, T objects (padded to the largest number in the batch), K classes.
"""

import logging

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .boxes import box_cxcywh_to_xyxy, generalised_box_iou, planar
from .configuration import HfDetrConfig
from .targets import Matches, Targets

logger = logging.getLogger(__name__)


class HungarianMatcher:
    """The assignment of least total cost (Carion et al. 2020); the cost is taken in float32 or float64.

    cost = class_cost · class term + bbox_cost · L1 distance - giou_cost · generalised IoU

    The class term is minus the probability of the object's class, or, with sigmoids, the difference between the focal
    loss of predicting it and of not predicting it (Deformable DETR).

    Predictions that are not finite cannot be compared: they are given the highest cost, and the images concerned are
    named in a warning. The loss of such a batch is not finite; skipping it is up to the training loop.
    """

    def __init__(self, config: HfDetrConfig):
        self.class_cost, self.bbox_cost, self.giou_cost = config.class_cost, config.bbox_cost, config.giou_cost
        self.softmax = config.classification == "softmax"
        self.focal_alpha = config.focal_alpha

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, targets: Targets) -> Matches:
        """Match every layer and image.

        Args:
            logits: (L, B, Q, K).
            boxes: (L, B, Q, 4) normalised cxcywh.
            targets: the objects.
        """
        # the only copy to the host; the assignment works on objects × queries
        host = self.costs(logits, boxes, targets).cpu().numpy()
        host = self._guard(host, targets)
        query_index = np.zeros(host.shape[:-1], dtype=np.int64)
        matched = np.zeros(host.shape[:-1], dtype=bool)
        for layer, image in np.ndindex(host.shape[:2]):
            objects, queries = linear_sum_assignment(host[layer, image, : targets.counts[image]])
            query_index[layer, image, objects] = queries
            matched[layer, image, objects] = True
        return Matches(*(torch.from_numpy(values).to(logits.device) for values in (query_index, matched)))

    def costs(self, logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
        """(L, B, T, Q) cost of matching each object with each query of its own image.

        The cost is NaN where a prediction of the query is NaN or infinite.
        """
        wanted = targets.boxes.to(boxes)
        placed, wanted_corners = planar(box_cxcywh_to_xyxy(boxes))[:, :, None], box_cxcywh_to_xyxy(wanted)[:, :, None]
        giou = generalised_box_iou(placed, wanted_corners)
        of_class = targets.class_labels[None, :, None].expand(*logits.shape[:3], -1)
        scores = logits.softmax(-1).gather(-1, of_class) if self.softmax else logits.gather(-1, of_class).sigmoid()
        probability = scores.transpose(-1, -2).contiguous()
        # 0, or NaN where any prediction of the query is not finite
        not_a_number = 0 * (logits.sum(-1) + boxes.sum(-1))
        costs = self.class_term(probability).mul_(self.class_cost).add_(not_a_number[:, :, None])
        for coordinate, goal in zip(planar(boxes).unbind(-1), wanted.unbind(-1), strict=True):
            costs.add_((coordinate[:, :, None] - goal[..., None]).abs_(), alpha=self.bbox_cost)
        return costs.sub_(giou, alpha=self.giou_cost)

    def class_term(self, probability: Tensor) -> Tensor:
        """(L, B, T, Q) class part of the cost, from the probability of each object's class."""
        if self.softmax:
            return -probability
        # The published constant inside the logarithms bounds the cost. In place: there are many millions of pairs.
        absent = 1 - probability
        positive = (probability + 1e-8).log_().mul_(absent).mul_(absent).mul_(-self.focal_alpha)
        negative = (absent + 1e-8).log_().mul_(probability).mul_(probability).mul_(self.focal_alpha - 1)
        return positive.sub_(negative)

    @staticmethod
    def _guard(costs: np.ndarray, targets: Targets) -> np.ndarray:
        finite = np.isfinite(costs)
        if finite.all():
            return costs
        # rows beyond an image's own objects are padding and always finite with finite predictions
        images = [targets.image_id(image) for image in np.flatnonzero(~finite.all(axis=(0, 2, 3))).tolist()]
        logger.warning(
            "Predictions for image ids %s are not finite (NaN or infinite); matched at the highest cost.", images
        )
        return np.where(finite, costs, np.float64(1e6))
