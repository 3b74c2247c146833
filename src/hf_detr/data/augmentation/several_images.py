"""Makes one training image of several: mosaic, mixup and copy-paste.

An example is an image, uint8 (3, H, W), and its target: `boxes` (T, 4) as `tv_tensors.BoundingBoxes` in xyxy pixels,
`masks` (T, H, W) as `tv_tensors.Mask` where the data has them, and other tensors with one entry per object.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .published import box_areas, without_lost_objects

Example = tuple[Tensor, dict[str, Any]]

LEAST_SHOWN = 0.35
"""The least share of an image's area, apart from what its new shape cuts off, that is shown in a part of another
image."""
MOSAIC_CENTRE = (0.3, 0.7)
"""The bounds of the point where the four images of a mosaic meet, as a share of its height and width."""
TILE_EDGE = 0.75
"""The edge of the images of a mosaic that is enough for their parts of it, as a share of the mosaic's edge."""
MIXUP_WEIGHT = (0.4, 0.6)
"""The bounds of the weight of the first image in mixup. Objects of both stay visible, because the model is asked for
both."""


def cover(image: Tensor, target: dict[str, Any], size: tuple[int, int]) -> Example:
    """Fill a rectangle of (height, width) with a random part of an example, its aspect ratio kept."""
    ratio = size[1] / size[0]
    crop = v2.RandomResizedCrop(size, scale=(LEAST_SHOWN, 1.0), ratio=(ratio, ratio))
    image, target = crop(image, target)
    return image, without_lost_objects(target)


def mosaic(examples: Sequence[Example], size: tuple[int, int]) -> Example:
    """Put a random part of each of four examples into the quarters around a random point (Bochkovskiy et al., 2020).

    Args:
        examples: the examples for the top left, top right, bottom left and bottom right.
        size: (height, width) of the result, at least 2 pixels each.
    """
    height, width = size
    y, x = (min(max(round(side * _uniform(*MOSAIC_CENTRE)), 1), side - 1) for side in size)
    canvas = examples[0][0].new_empty(3, height, width)
    targets = []
    for example, (top, bottom), (left, right) in zip(
        examples, [(0, y), (0, y), (y, height), (y, height)], [(0, x), (x, width)] * 2, strict=True
    ):
        part, target = cover(*example, (bottom - top, right - left))
        canvas[:, top:bottom, left:right] = part
        borders = [left, top, width - right, height - bottom]
        for name in {"boxes", "masks"} & target.keys():
            target[name] = functional.pad(target[name], borders)
        targets.append(target)
    return canvas, joined(targets)


def mixup(first: Example, second: Example) -> Example:
    """Blend two examples of one size. The result has the objects of both (Zhang et al., 2019)."""
    weight = _uniform(*MIXUP_WEIGHT)
    image = torch.lerp(second[0].float(), first[0].float(), weight).round_().to(torch.uint8)
    return image, joined([first[1], second[1]])


def copy_paste(first: Example, second: Example) -> Example:
    """Paste a random half of the objects of the second example onto the first, of the same size (Ghiasi et al., 2021).

    Objects of the first example keep the part that is still visible, and are left out where nothing of them is. Crowd
    regions are not pasted. Nothing is pasted where a target has no `masks`.
    """
    (image, target), (source, pasted) = first, second
    if not ("masks" in target and "masks" in pasted):
        return first
    chosen = (torch.rand(len(pasted["boxes"])) < 0.5) & pasted["masks"].flatten(1).any(1)
    if "iscrowd" in pasted:
        chosen &= pasted["iscrowd"] == 0
    pasted = selected(pasted, chosen)
    if not len(pasted["boxes"]):
        return first
    cover_mask = pasted["masks"].as_subclass(Tensor).any(0)
    image = torch.where(cover_mask, source, image)
    return image, joined([_occluded(target, cover_mask), pasted])


def _occluded(target: dict[str, Any], hidden: Tensor) -> dict[str, Any]:
    """Return the target of objects behind `hidden` (H, W), with boxes, masks and areas of the visible parts."""
    masks = target["masks"].as_subclass(Tensor)
    touched = (masks & hidden).flatten(1).any(1)
    masks = masks & ~hidden
    visible = masks.flatten(1).sum(1)
    boxes = target["boxes"].as_subclass(Tensor).clone()
    changed = touched & (visible > 0)
    boxes[changed] = masks_to_boxes(masks[changed]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    target = target | {
        "boxes": tv_tensors.wrap(boxes, like=target["boxes"]),
        "masks": tv_tensors.wrap(masks, like=target["masks"]),
    }
    if "area" in target:  # as a share of the box
        target["area"] = torch.where(changed, visible / box_areas(boxes).clamp(min=1e-6), target["area"])
    return selected(target, ~touched | changed)


def selected(target: dict[str, Any], chosen: Tensor) -> dict[str, Any]:
    """Return the target of some of the objects, `chosen` (T,) bool."""
    return {name: _like(value[chosen], value) for name, value in target.items()}


def joined(targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the objects of several targets, of images of one size, as one target with what all of them have."""
    first = targets[0]
    names = [name for name in first if all(name in target for target in targets)]
    return {name: _like(torch.cat([target[name] for target in targets]), first[name]) for name in names}


def _like(value: Tensor, original: Tensor) -> Tensor:
    return tv_tensors.wrap(value, like=original) if isinstance(original, tv_tensors.TVTensor) else value


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()
