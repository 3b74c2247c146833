"""The suite that measures the way from a JPEG file to detections, as users run it."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, pipeline

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor
from hf_detr.acceleration.inference import optimize_for_inference
from hf_detr.processing.sizes import published_size

from .contest import Comparison, Contestant, Lap, Work
from .models import our_model
from .options import BenchOptions
from .peers import COUNTERPARTS, counterpart
from .scenes import picture

PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50")


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield one JPEG of 640 x 480 through `transformers.pipeline`, at a shortest edge of 800, or of 64 when quick.

    The second comparison leaves the network out: a stand-in returns the outputs of an earlier pass. It measures
    reading the file, the image processor and the post-processing.
    """
    size = published_size(64) if options.quick else published_size()
    for preset in options.presets or PRESETS:
        for title, forward in (("whole", True), ("all but the forward pass", False)):
            make = partial(detection, options=options, size=size, forward=forward)
            ours = partial(our_model, preset)
            processor = partial(our_processor, preset, size)
            contestants = [Contestant("hf_detr", partial(make, ours, processor))]
            if forward:
                contestants.append(
                    Contestant("hf_detr optimised", partial(make, partial(optimised_model, ours), processor))
                )
            theirs = Contestant(
                "transformers", partial(make, partial(counterpart, preset), partial(theirs_of, preset, size))
            )
            yield Comparison(f"{preset}, {title}", [*contestants, theirs], "transformers")


def our_processor(preset: str, size: dict[str, int]) -> HfDetrImageProcessor:
    """Return the image processor of a preset."""
    return HfDetrImageProcessor.for_config(HfDetrConfig.from_preset(preset), size)


def optimised_model(make: Callable[[], HfDetrForObjectDetection]) -> PreTrainedModel:
    """Return the optimised form of a model."""
    return optimize_for_inference(make().eval())


def theirs_of(preset: str, size: dict[str, int]) -> Any:
    """Return the image processor of transformers for the counterpart of a preset."""
    kind, _ = COUNTERPARTS[preset]
    name = "ConditionalDetrImageProcessor" if kind == "DabDetr" else f"{kind}ImageProcessor"
    return getattr(import_module("transformers"), name)(size=size)


def detection(
    make_model: Callable[[], PreTrainedModel],
    make_processor: Callable[[], Any],
    options: BenchOptions,
    size: dict[str, int],
    forward: bool,
) -> Work:
    """Return the pipeline on one file, with a threshold that keeps about as many detections as a trained model has."""
    torch.manual_seed(0)
    model, folder = make_model().eval(), tempfile.TemporaryDirectory()
    path = Path(folder.name) / "picture.jpg"
    picture(640, 480).save(path, quality=90)
    detector = pipeline(
        "object-detection", model=model, image_processor=make_processor(), device=torch.device(options.device)
    )
    run = model.forward

    def timed_forward(*args: Any, **kwargs: Any) -> Any:
        current[0]("before the forward pass")
        outputs = recorded[0] if recorded and not forward else run(*args, **kwargs)
        recorded[:] = [outputs]
        current[0]("forward pass")
        return outputs

    current: list[Lap] = [lambda name: None]
    recorded: list[Any] = []
    model.forward = timed_forward

    def work(lap: Lap) -> Any:
        assert folder  # the file lives as long as the work
        current[0] = lap
        found = detector(str(path), threshold=0.9)
        lap("after the forward pass")
        return found

    return work
