"""Measures the most arithmetic that this machine does in a second, with which measured models are compared."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from hf_detr.acceleration.dtypes import is_fast_with_bfloat16


def dtypes(device: str) -> tuple[str, ...]:
    """Return the dtypes worth measuring here. Without instructions for bfloat16 it is hundreds of times slower."""
    fast = is_fast_with_bfloat16(torch.device(device))
    return ("float32", "bfloat16") if fast else ("float32",)


def peaks(device: str, quick: bool) -> dict[str, dict[str, float]]:
    """Return by dtype the most GFLOP/s seen in a large matrix product and in a large 3 x 3 convolution."""
    return {
        dtype: {
            "matrix_product": matrix_product_peak(getattr(torch, dtype), device, 256 if quick else 2048),
            "convolution": convolution_peak(getattr(torch, dtype), device, 16 if quick else 128),
        }
        for dtype in dtypes(device)
    }


def matrix_product_peak(dtype: torch.dtype, device: str, size: int) -> float:
    """Return the GFLOP/s of the best of ten products of square matrices."""
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / fastest(lambda: left @ right, device) / 1e9


def convolution_peak(dtype: torch.dtype, device: str, side: int, channels: int = 128) -> float:
    """Return the GFLOP/s of the best of ten convolutions, with weights in the layout that suits the library best."""
    convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    convolution = convolution.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    pixels = torch.randn(1, channels, side, side, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    flops = 2 * side**2 * channels**2 * 9
    return flops / fastest(lambda: F.conv2d(pixels, convolution.weight, padding=1), device) / 1e9


@torch.no_grad()
def fastest(work: Callable[[], Any], device: str, repeats: int = 10) -> float:
    """Return the seconds of the fastest of some runs, after two runs that warm up."""
    seconds = []
    for _ in range(2 + repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])
