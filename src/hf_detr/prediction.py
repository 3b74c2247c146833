"""Detections of a model on pictures."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel


@torch.no_grad()
def detect(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    images: Sequence[Image.Image],
    threshold: float = 0.5,
) -> list[dict[str, Tensor]]:
    """Return the detections on a batch of images, which may differ in size.

    Args:
        model: a model for object detection, in evaluation mode.
        image_processor: the one it was trained with.
        images: RGB pictures.
        threshold: the lowest score of a detection.

    Returns:
        for each image `scores` (N,), `labels` (N,) and `boxes` (N, 4) as (x0, y0, x1, y1) in the image's own pixels,
        on the CPU.
    """
    inputs = image_processor(images=list(images), return_tensors="pt").to(model.device)
    outputs = model(pixel_values=inputs["pixel_values"].to(model.dtype), pixel_mask=inputs["pixel_mask"])
    sizes = [(image.height, image.width) for image in images]
    detections = image_processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
    return [{name: value.cpu() for name, value in detection.items()} for detection in detections]
