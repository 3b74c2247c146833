"""The ground truth of a batch: its objects, padded, and which query answers which.

Shapes: B batch, T objects (padded to the largest number in the batch), L layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Targets:
    """The objects of a batch, padded.

    Attributes:
        class_labels: (B, T) int64, 0 where padded.
        boxes: (B, T, 4) normalised cxcywh, in at least float32.
        valid: (B, T), True on real objects.
        counts: number of objects of each image.
        image_ids: of each image, or its index in the batch, for messages.
    """

    class_labels: Tensor
    boxes: Tensor
    valid: Tensor
    counts: list[int]
    image_ids: list[int]

    @classmethod
    def from_labels(cls, labels: list[dict[str, Tensor]], dtype: torch.dtype) -> "Targets":
        """Pad the labels of a batch.

        Args:
            labels: per image `class_labels` (T,) and `boxes` (T, 4); optionally `image_id`.
            dtype: of the boxes; half precision is raised to float32.

        Raises:
            ValueError: naming the image, when a field is missing or its shape is wrong.
        """
        image_ids = [_image_id(label, index) for index, label in enumerate(labels)]
        for image_id, label in zip(image_ids, labels, strict=True):
            _check_label(label, image_id)
        counts = [len(label["class_labels"]) for label in labels]
        pad = nn.utils.rnn.pad_sequence
        boxes = pad([label["boxes"] for label in labels], batch_first=True)
        class_labels = pad([label["class_labels"] for label in labels], batch_first=True)
        slots = torch.arange(max(counts), device=boxes.device)
        valid = slots < torch.tensor(counts, device=boxes.device)[:, None]
        boxes = boxes.to(torch.promote_types(dtype, torch.float32))
        return cls(class_labels.long(), boxes, valid, counts, image_ids)

    def repeat(self, times: int) -> "Targets":
        """Every object `times` times: (B, times·T)."""
        return Targets(
            self.class_labels.repeat(1, times),
            self.boxes.repeat(1, times, 1),
            self.valid.repeat(1, times),
            [count * times for count in self.counts],
            self.image_ids,
        )

    def class_agnostic(self) -> "Targets":
        """The same objects, all of class 0."""
        labels = torch.zeros_like(self.class_labels)
        return Targets(labels, self.boxes, self.valid, self.counts, self.image_ids)


@dataclass
class Matches:
    """The query that each object is matched to.

    Attributes:
        query_index: (L, B, T) int64.
        matched: (L, B, T), False for padding and for objects without a query; their index means nothing.
    """

    query_index: Tensor
    matched: Tensor


def _image_id(label: dict[str, Tensor], index: int) -> int:
    image_id = label.get("image_id")
    return index if image_id is None else int(image_id)


def _check_label(label: dict[str, Tensor], image_id: int) -> None:
    for key in ("class_labels", "boxes"):
        if key not in label:
            raise ValueError(f"The labels of image {image_id} have no '{key}'; they have {sorted(label)}.")
    expected = (len(label["class_labels"]), 4)
    if tuple(label["boxes"].shape) != expected:
        raise ValueError(
            f"The labels of image {image_id} have 'boxes' of shape {tuple(label['boxes'].shape)}; {expected} was "
            "expected for its 'class_labels'."
        )
