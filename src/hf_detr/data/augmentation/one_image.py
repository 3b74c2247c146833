"""Augments one image beyond the published recipe, with the transforms of torchvision where it has them."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .published import RandomResize, without_lost_objects

GREY = (124.0, 116.0, 104.0)
"""The colour around an image, which is the mean colour of ImageNet, so that it is about 0 after normalising."""
FILL = {Tensor: GREY, tv_tensors.Mask: 0}
CROP_TRIALS = 10
"""The trials for one overlap, after which another overlap is drawn. Small objects rule out most overlaps, however many
trials are made."""
LEAST_CROPPED_SIDE = 8
"""An image is not cropped to sides smaller than this, in pixels."""


class PhotometricDistortion(v2.RandomPhotometricDistort):
    """Change brightness, contrast, saturation and hue as SSD does (Liu et al., 2016).

    The channels stay in order: SSD's own configuration never shuffles them, and many small data sets tell their
    classes apart by colour.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the changes."""
        return super().make_params(flat_inputs) | {"channel_permutation": None}


class QuarterTurn(v2.Transform):
    """Turn the image by 90, 180 or 270 degrees."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the angle."""
        return {"angle": 90.0 * int(torch.randint(1, 4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn one image, mask or set of boxes."""
        if isinstance(inpt, tv_tensors.BoundingBoxes) and not len(inpt):  # torchvision leaves their canvas as it was
            height, width = inpt.canvas_size
            canvas = (height, width) if params["angle"] == 180 else (width, height)
            return tv_tensors.wrap(inpt.as_subclass(Tensor), like=inpt, canvas_size=canvas)
        return self._call_kernel(functional.rotate, inpt, angle=params["angle"], expand=True)


class LargeScaleJitter:
    """Scale the image at random against a canvas of its final size, then crop or pad it to that (Ghiasi et al., 2021).

    Args:
        resize: draws the final size.
        scale: the bounds of the scale, drawn uniformly; at 1 the image fills the canvas.
    """

    def __init__(self, resize: RandomResize, scale: tuple[float, float] = (0.1, 2.0)):
        self.resize = resize
        self.scale = scale

    def __call__(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the image (3, H, W) and its target at their final size."""
        canvas = self.resize.draw_size(image)
        scale = torch.empty(()).uniform_(*self.scale).item()
        scaled = [max(1, round(side * scale)) for side in canvas]
        place = v2.RandomCrop(canvas, pad_if_needed=True, fill=FILL)
        return place(*v2.Resize(scaled)(image, target))


class IoUCrop:
    """Crop so that the objects whose centre stays overlap the crop by a random share (SSD), then resize.

    Args:
        resize: draws the final size.
    """

    def __init__(self, resize: RandomResize):
        self.resize = resize
        self.crop = v2.RandomIoUCrop(trials=CROP_TRIALS)

    def __call__(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the image (3, H, W) and its target at their final size; an image without objects is only resized."""
        if len(target["boxes"]) and min(image.shape[1:]) >= LEAST_CROPPED_SIDE:
            image, target = self.crop(image, target)
            target = without_lost_objects(target)
        return self.resize(image, target)
