"""Makes contestants of forward passes: of our models, plain and optimised, and of the models of others."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from hf_detr import HfDetrConfig, HfDetrForObjectDetection
from hf_detr.acceleration.heap import freed_memory_is_kept
from hf_detr.acceleration.inference import optimize_for_inference

from .contest import Contestant, Lap, Work
from .options import BenchOptions
from .peers import counterpart, require, transformers_forward

Forward = Callable[[nn.Module, Tensor], Callable[[], Any]]
Shape = tuple[int, int, int]
"""Images, height, width."""

FULL_SIZES = ((640, 640), (800, 1066))
QUICK_SIZE = (256, 256)  # the least that gives four levels as many tokens as there are queries


def sizes(options: BenchOptions) -> tuple[tuple[int, int], ...]:
    """Return the heights and widths of a suite on images."""
    return (QUICK_SIZE,) if options.quick else FULL_SIZES


def our_model(preset: str, **overrides: Any) -> HfDetrForObjectDetection:
    """Return a model of a preset, with random weights."""
    return HfDetrForObjectDetection(HfDetrConfig.from_preset(preset, **overrides))


def pixels_of(shape: Shape, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return normal noise (images, 3, height, width), which is distributed like normalised pictures."""
    images, height, width = shape
    noise = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    return noise.to(device=device, dtype=dtype)


def forward_contestant(
    name: str,
    make: Callable[[], nn.Module],
    shape: Shape,
    options: BenchOptions,
    forward: Forward = transformers_forward,
    dtype: str = "float32",
    count_flops: bool = False,
) -> Contestant:
    """Return a contestant that runs a model in evaluation mode on a batch, without gradients."""

    def build() -> Work:
        torch.manual_seed(0)
        model = make().eval().requires_grad_(False).to(device=options.device, dtype=getattr(torch, dtype))
        run = forward(model, pixels_of(shape, options.device, getattr(torch, dtype)))

        def work(_: Any) -> None:
            with torch.inference_mode():
                run()

        return work

    return Contestant(name, build, dtype, count_flops)


def our_forms(preset: str, shape: Shape, options: BenchOptions) -> Iterator[Contestant]:
    """Yield our model plain and optimised, in bfloat16 and, if that is asked for, compiled."""

    def plain() -> nn.Module:
        return our_model(preset)

    def faster(**choices: Any) -> Callable[[], nn.Module]:
        return lambda: optimize_for_inference(our_model(preset).eval().to(options.device), **choices)

    yield forward_contestant("hf_detr", plain, shape, options, count_flops=True)
    yield forward_contestant("hf_detr optimised", faster(), shape, options, count_flops=True)
    yield optimised_bfloat16("hf_detr optimised, bfloat16", faster(dtype=torch.bfloat16), shape, options)
    if options.compile:
        yield forward_contestant("hf_detr optimised, compiled", faster(compile=True), shape, options)
        both = faster(dtype=torch.bfloat16, compile=True)
        yield optimised_bfloat16("hf_detr optimised, compiled, bfloat16", both, shape, options)


def optimised_bfloat16(name: str, make: Callable[[], nn.Module], shape: Shape, options: BenchOptions) -> Contestant:
    """Return a contestant that is optimised in bfloat16. It takes pixels in float32 and converts them by itself."""

    def build() -> Work:
        torch.manual_seed(0)
        run = transformers_forward(make(), pixels_of(shape, options.device))

        def work(_: Any) -> None:
            with torch.inference_mode():
                run()

        return work

    return Contestant(name, build, "bfloat16", count_flops=True)


def keeping(build: Callable[[], Work]) -> Work:
    """Return work whose freed memory stays with the process, as in our optimised models and our trainer."""
    work = build()

    def kept(lap: Lap) -> Any:
        with freed_memory_is_kept():
            return work(lap)

    return kept


def openvino_forms(preset: str, shape: Shape, options: BenchOptions) -> Iterator[Contestant]:
    """Yield our model run by OpenVINO, where it is installed, in each precision."""
    for name, dtype, precision in (("OpenVINO", "float32", "f32"), ("OpenVINO, bfloat16", "bfloat16", "bf16")):
        yield Contestant(name, partial(openvino_work, preset, shape, options.threads, precision), dtype)


def openvino_work(preset: str, shape: Shape, threads: int, precision: str) -> Work:
    """Return one request of the compiled network at a fixed shape.

    Raises:
        SkipContestant: OpenVINO is not installed.
    """
    require("openvino")
    openvino = import_module("openvino")
    torch.manual_seed(0)
    pixels = pixels_of(shape, "cpu")
    network = openvino.convert_model(
        torch.jit.trace(Outputs(our_model(preset).eval()), pixels, check_trace=False), input=list(pixels.shape)
    )
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    return lambda _: request.infer({0: pixels.numpy()})


class Outputs(nn.Module):
    """A detector that returns plain tensors: class logits and boxes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) → (B, Q, K) and (B, Q, 4)."""
        outputs = self.model(pixels)
        return outputs.logits, outputs.pred_boxes


def their_forms(preset: str, shape: Shape, options: BenchOptions) -> Iterator[Contestant]:
    """Yield the same architecture in transformers, or the nearest one; its name says which it is."""

    def make() -> nn.Module:
        return counterpart(preset, nearest=True)

    plain = forward_contestant("transformers", make, shape, options, count_flops=True)
    yield plain
    yield forward_contestant("transformers, bfloat16", make, shape, options, dtype="bfloat16")
    if options.device == "cpu":
        yield Contestant("transformers, freed memory kept", partial(keeping, plain.build))
    if options.compile:

        def compiled() -> nn.Module:
            model = make().eval()
            model.compile()
            return model

        yield forward_contestant("transformers, compiled", compiled, shape, options)
