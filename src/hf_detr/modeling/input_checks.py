"""Images and labels of a batch as a user gives them: what is wrong with a label is said with the id of its image."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

_FARTHEST = 0.5 + 1e-3  # of a number of a box from 0.5: boxes that fill their image may be rounded beyond it


def check_pixel_values(pixel_values: Any, num_channels: int) -> None:
    """Raise ValueError for images that are no floating-point tensor of shape (B, `num_channels`, H, W)."""
    if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
        found = f"of type {getattr(pixel_values, 'dtype', type(pixel_values).__name__)}"
    elif pixel_values.ndim != 4 or not (torch.jit.is_tracing() or pixel_values.shape[1] == num_channels):
        found = f"of shape {tuple(pixel_values.shape)}"
    else:
        return
    expected = f"a tensor of floating-point numbers of shape (B, C, H, W) with C={num_channels} channels was expected"
    raise ValueError(f"'pixel_values' are {found}; {expected}.")


def check_label_count(labels: Any, num_images: int) -> None:
    """Raise ValueError when `labels` is no list, or its length is not the number of images."""
    if not isinstance(labels, Sequence):
        expected = "a list was expected, which holds a dict with 'class_labels' and 'boxes' for each image"
        raise ValueError(f"'labels' are of type {type(labels).__name__}; {expected}.")
    if len(labels) != num_images:
        raise ValueError(f"'labels' describe {len(labels)} images, but 'pixel_values' hold {num_images} images.")


def check_label_fields(label: Mapping[str, Tensor], index: int) -> None:
    """Raise ValueError when the labels of an image lack a field, or one has a wrong shape or type."""

    def refuse(what: str) -> NoReturn:
        image_id = label.get("image_id", index) if isinstance(label, Mapping) else index
        raise ValueError(f"The labels of image {int(image_id)} {what}.")

    if not isinstance(label, Mapping):
        refuse(f"are of type {type(label).__name__}; a dict with 'class_labels' and 'boxes' was expected")
    for key in ("class_labels", "boxes"):
        if key not in label:
            refuse(f"have no '{key}'; they have {sorted(label)}")
        if not isinstance(label[key], Tensor):
            refuse(f"have '{key}' of type {type(label[key]).__name__}; a tensor was expected")
    numbers, shape = label["class_labels"], tuple(label["boxes"].shape)
    if numbers.ndim != 1:
        refuse(f"have 'class_labels' of shape {tuple(numbers.shape)}; one axis was expected")
    if numbers.dtype == torch.bool or (numbers.is_floating_point() and len(numbers)):
        refuse(f"have 'class_labels' of type {numbers.dtype}; an integer type such as torch.int64 was expected")
    if shape != (len(numbers), 4):
        refuse(f"have 'boxes' of shape {shape}; {(len(numbers), 4)} was expected for its 'class_labels'")


def check_label_values(
    boxes: Tensor, class_labels: Tensor, image_ids: Sequence[Tensor | int], num_labels: int | None
) -> None:
    """Raise ValueError for a box that is not normalised or not finite, or a label that is no class (None: any is).

    Boxes are (B, T, 4) and labels (B, T). Padded slots are zero, which is allowed. Where they are on a GPU, this waits
    for it once, for the whole batch.
    """
    wrong = ~((boxes - 0.5).abs() <= _FARTHEST).all(-1)  # NaN compares as false, so it is wrong
    if num_labels is not None:
        wrong |= (class_labels < 0) | (class_labels >= num_labels)
    if not bool(wrong.any()):
        return
    image, index = wrong.nonzero()[0].tolist()
    label, image_id = int(class_labels[image, index]), int(image_ids[image])
    if num_labels is not None and not 0 <= label < num_labels:
        allowed = f"num_labels={num_labels} classes: 'class_labels' are numbers from 0 to {num_labels - 1}"
        raise ValueError(f"Image {image_id} has the class label {label}, but the model has {allowed}.")
    box = ", ".join(f"{number:.6g}" for number in boxes[image, index].tolist())
    expected = "normalised (cx, cy, w, h) was expected, where each of the four numbers is from 0 to 1"
    raise ValueError(f"Image {image_id} has at index {index} of its 'boxes' the box [{box}]; {expected}.")
