"""Measures how fast a model is by a few forward passes over one picture."""

import statistics
import time
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import PreTrainedModel

from hf_detr.processing.image_processing import DetectionProcessing


@dataclass(frozen=True)
class Speed:
    """A measured speed, and the conditions under which it was measured.

    Attributes:
        images_per_second: the speed of the forward pass alone, one image at a time, from the median time.
        height, width: the size of the image as the model saw it, in pixels.
        dtype: the dtype of the weights, e.g. "float32".
        device: "cpu" with the number of threads, or the name of the accelerator.
        repetitions: the number of passes measured.
    """

    images_per_second: float
    height: int
    width: int
    dtype: str
    device: str
    repetitions: int


@torch.no_grad()
def measure_speed(
    model: PreTrainedModel, image_processor: DetectionProcessing, image: Image.Image, repetitions: int = 5
) -> Speed:
    """Time the forward pass on one picture, where the model is now; its mode (training or not) is kept."""
    was_training = model.training
    model.eval()
    inputs = image_processor(images=[image], return_tensors="pt").to(model.device, model.dtype)
    seconds = []
    for _ in range(1 + repetitions):
        start = time.perf_counter()
        model(pixel_values=inputs["pixel_values"], pixel_mask=inputs["pixel_mask"])
        if model.device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    model.train(was_training)
    height, width = inputs["pixel_values"].shape[-2:]
    # the first pass warms up
    median = statistics.median(seconds[1:])
    return Speed(1 / median, height, width, str(model.dtype).removeprefix("torch."), _device(model), repetitions)


def _device(model: PreTrainedModel) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}" if model.device.type == "cpu" else model.device.type
