"""The ground truth of a batch: its objects, padded, and which query answers which.

Shapes: B batch, T objects (padded to the largest number in the batch), L layers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .input_checks import check_label_fields, check_label_values


class Matches(NamedTuple):
    """The query that each object is matched to.

    Attributes:
        query_index: (L, B, T) int64.
        matched: (L, B, T), False for padding and for objects without a query; their index means nothing.
    """

    query_index: Tensor
    matched: Tensor


@dataclass
class Targets:
    """The objects of a batch, padded.

    Attributes:
        class_labels: (B, T) int64, 0 where padded.
        boxes: (B, T, 4) normalised cxcywh, in at least float32.
        valid: (B, T), True on real objects.
        counts: number of objects of each image.
        image_ids: of each image, as its label has it, or its index in the batch; for messages.
    """

    class_labels: Tensor
    boxes: Tensor
    valid: Tensor
    counts: list[int]
    image_ids: list[Tensor | int]

    @classmethod
    def from_labels(
        cls, labels: list[dict[str, Tensor]], dtype: torch.dtype, num_labels: int | None = None
    ) -> "Targets":
        """Pad the labels of a batch.

        Args:
            labels: per image `class_labels` (T,) of any integer type and `boxes` (T, 4) normalised cxcywh; optionally
                `image_id`. T may be 0.
            dtype: of the boxes; half precision is raised to float32.
            num_labels: the number of classes that labels must be below; None does not look at them.

        Raises:
            ValueError: naming the image, when a field is missing, its shape or type is wrong, a label is no class, or
                a box is not normalised or not finite.
        """
        for index, label in enumerate(labels):
            check_label_fields(label, index)
        class_labels = [label["class_labels"].long() for label in labels]
        counts = [len(rows) for rows in class_labels]
        pad = nn.utils.rnn.pad_sequence
        boxes = pad([label["boxes"] for label in labels], batch_first=True)
        slots = torch.arange(max(counts), device=boxes.device)
        targets = cls(
            pad(class_labels, batch_first=True),
            boxes.to(torch.promote_types(dtype, torch.float32)),
            slots < torch.tensor(counts, device=boxes.device)[:, None],
            counts,
            [label.get("image_id", index) for index, label in enumerate(labels)],
        )
        check_label_values(targets.boxes, targets.class_labels, targets.image_ids, num_labels)
        return targets

    def image_id(self, image: int) -> int:
        """The id of an image of the batch. Where ids are on a GPU this waits for it."""
        return int(self.image_ids[image])


def count_boxes(targets: Targets) -> Tensor:
    """Number of objects per rank, averaged over the ranks, at least 1."""
    count = torch.tensor(float(sum(targets.counts)), device=targets.boxes.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)
