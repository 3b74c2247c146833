"""Chooses the dtype that an optimised model computes in."""

import torch

from hf_detr.modeling.detection import HfDetrForObjectDetection


def choose_dtype(dtype: torch.dtype | str | None, model: HfDetrForObjectDetection) -> torch.dtype:
    """Return the dtype to compute in. Raises ValueError where `dtype` is no floating point type."""
    if dtype is None:
        return model.dtype
    if dtype == "auto":
        return torch.bfloat16 if is_fast_with_bfloat16(model.device) else model.dtype
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise ValueError(f"dtype={dtype!r}: expected a floating point type of torch, its name, 'auto' or None.")
    return chosen


def is_fast_with_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
