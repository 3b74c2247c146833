"""Runs a model on pictures. Only pictures of one processed size share a batch, so that nothing is padded.

Padding to a common size costs time, and it moves boxes, because published backbones do not mask padded pixels.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from hf_detr.acceleration.heap import freed_memory_is_kept
from hf_detr.processing.image_processing import DetectionProcessing


@dataclass(frozen=True)
class Prepared:
    """Pictures that the image processor has made equally large.

    Attributes:
        pixel_values: (B, 3, H, W) float32.
        pixel_mask: (B, H, W) int64, 1 where a pixel is real; None where all pixels are real.
        sizes: (height, width) of each picture before it was resized.
    """

    pixel_values: Tensor
    pixel_mask: Tensor | None
    sizes: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> torch.Size:
        """The shape that pictures must have in common to share a batch."""
        return self.pixel_values.shape[1:]


def prepare(image_processor: DetectionProcessing, image: Image.Image) -> Prepared:
    """Return one picture in the form that the model takes."""
    inputs = image_processor(images=image, return_tensors="pt")
    return Prepared(inputs["pixel_values"], inputs.get("pixel_mask"), ((image.height, image.width),))


def stack(pictures: Sequence[Prepared]) -> Prepared:
    """Join pictures of one shape to a batch."""
    masks = [picture.pixel_mask for picture in pictures if picture.pixel_mask is not None]
    return Prepared(
        torch.cat([picture.pixel_values for picture in pictures]),
        torch.cat(masks) if len(masks) == len(pictures) else None,
        tuple(size for picture in pictures for size in picture.sizes),
    )


@torch.no_grad()
def detect_prepared(
    model: PreTrainedModel, image_processor: DetectionProcessing, batch: Prepared, threshold: float
) -> list[dict[str, Tensor]]:
    """Return the detections on a batch; see `detect`."""
    mask = None if batch.pixel_mask is None else batch.pixel_mask.to(model.device)
    with freed_memory_is_kept() if model.device.type == "cpu" else nullcontext():
        outputs = model(pixel_values=batch.pixel_values.to(model.device, model.dtype), pixel_mask=mask)
    detections = image_processor.post_process_object_detection(
        outputs, threshold=threshold, target_sizes=list(batch.sizes)
    )
    return [{name: value.cpu() for name, value in detection.items()} for detection in detections]


def detect(
    model: PreTrainedModel,
    image_processor: DetectionProcessing,
    images: Sequence[Image.Image],
    threshold: float = 0.5,
) -> list[dict[str, Tensor]]:
    """Return the detections on pictures, which may differ in size. Pictures of one processed size run as a batch.

    Args:
        model: a model for object detection, in evaluation mode.
        image_processor: the image processor that the model was trained with.
        images: RGB pictures.
        threshold: the lowest score of a detection.

    Returns:
        for each image `scores` (N,), `labels` (N,) and `boxes` (N, 4) as (x0, y0, x1, y1) in the image's own pixels,
        on the CPU.
    """
    groups: dict[torch.Size, list[int]] = {}
    pictures = [prepare(image_processor, image) for image in images]
    for index, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(index)
    detections: dict[int, dict[str, Tensor]] = {}
    for indices in groups.values():
        found = detect_prepared(model, image_processor, stack([pictures[index] for index in indices]), threshold)
        detections.update(zip(indices, found, strict=True))
    return [detections[index] for index in range(len(pictures))]
