"""The labels of a batch as a user gives them: what is wrong with one is said with the id of its image."""

import torch
from torch import Tensor


def check_labels(labels: list[dict[str, Tensor]], num_labels: int | None) -> None:
    """Raise ValueError for labels without their fields, of a wrong shape or type, or that are no class.

    Args:
        labels: per image `class_labels` (T,) and `boxes` (T, 4); optionally `image_id`.
        num_labels: the number of classes that labels must be below; None does not look at them.
    """
    for index, label in enumerate(labels):
        _check_fields(label, index)
    if num_labels is not None:
        _check_range(labels, num_labels)


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


def _check_range(labels: list[dict[str, Tensor]], num_labels: int) -> None:
    """Raise ValueError for a label that is no class. Labels on a GPU cost one wait for it, for the whole batch."""
    class_labels = [label["class_labels"] for label in labels]
    together = torch.cat([rows.long() for rows in class_labels])
    if not bool(((together < 0) | (together >= num_labels)).any()):
        return
    for index, (label, rows) in enumerate(zip(labels, class_labels, strict=True)):
        wrong = rows[(rows < 0) | (rows >= num_labels)].tolist()
        if wrong:
            raise ValueError(
                f"Image {int(label.get('image_id', index))} has the class label {wrong[0]}, but the model has "
                f"num_labels={num_labels} classes: 'class_labels' are numbers from 0 to {num_labels - 1}."
            )
