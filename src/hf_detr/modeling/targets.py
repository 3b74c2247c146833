"""The ground truth of a batch: its objects, padded, and which query answers which.

Shapes: B batch, T objects (padded to the largest number in the batch), L layers.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
            ValueError: naming the image, when a field is missing, its shape or type is wrong, or a label is no class.
        """
        for index, label in enumerate(labels):
            _check_fields(label, index)
        class_labels = [label["class_labels"].long() for label in labels]
        if num_labels is not None:
            _check_range(labels, class_labels, num_labels)
        counts = [len(rows) for rows in class_labels]
        pad = nn.utils.rnn.pad_sequence
        boxes = pad([label["boxes"] for label in labels], batch_first=True)
        slots = torch.arange(max(counts), device=boxes.device)
        return cls(
            pad(class_labels, batch_first=True),
            boxes.to(torch.promote_types(dtype, torch.float32)),
            slots < torch.tensor(counts, device=boxes.device)[:, None],
            counts,
            [label.get("image_id", index) for index, label in enumerate(labels)],
        )

    def image_id(self, image: int) -> int:
        """The id of an image of the batch. Where ids are on a GPU this waits for it."""
        return int(self.image_ids[image])

    def repeat(self, times: int) -> "Targets":
        """Every object `times` times: (B, times·T)."""
        if times == 1:
            return self
        return Targets(
            self.class_labels.repeat(1, times),
            self.boxes.repeat(1, times, 1),
            self.valid.repeat(1, times),
            [count * times for count in self.counts],
            self.image_ids,
        )

    def class_agnostic(self) -> "Targets":
        """The same objects, all of class 0."""
        return replace(self, class_labels=torch.zeros_like(self.class_labels))


def count_boxes(targets: Targets) -> Tensor:
    """Number of objects per rank, averaged over the ranks, at least 1."""
    count = torch.tensor(float(sum(targets.counts)), device=targets.boxes.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)


def _check_fields(label: dict[str, Tensor], index: int) -> None:
    """Raise ValueError for a label without its fields, or with fields of the wrong shape or type."""

    def refuse(what: str) -> None:
        raise ValueError(f"The labels of image {int(label.get('image_id', index))} have {what}.")

    for key in ("class_labels", "boxes"):
        if key not in label:
            refuse(f"no '{key}'; they have {sorted(label)}")
    class_labels, expected = label["class_labels"], (len(label["class_labels"]), 4)
    if class_labels.dtype == torch.bool or (class_labels.is_floating_point() and len(class_labels)):
        refuse(f"'class_labels' of type {class_labels.dtype}; an integer type such as torch.int64 was expected")
    if tuple(label["boxes"].shape) != expected:
        refuse(f"'boxes' of shape {tuple(label['boxes'].shape)}; {expected} was expected for its 'class_labels'")


def _check_range(labels: list[dict[str, Tensor]], class_labels: list[Tensor], num_labels: int) -> None:
    """Raise ValueError for a label that is no class. Labels on a GPU cost one wait for it, for the whole batch."""
    together = torch.cat(class_labels)
    if not bool(((together < 0) | (together >= num_labels)).any()):
        return
    for index, (label, rows) in enumerate(zip(labels, class_labels, strict=True)):
        wrong = rows[(rows < 0) | (rows >= num_labels)].tolist()
        if wrong:
            raise ValueError(
                f"Image {int(label.get('image_id', index))} has the class label {wrong[0]}, but the model has "
                f"num_labels={num_labels} classes: 'class_labels' are numbers from 0 to {num_labels - 1}."
            )
