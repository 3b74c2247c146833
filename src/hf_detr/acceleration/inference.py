"""Makes a faster copy of a detector, for inference only."""

from contextlib import nullcontext
from copy import deepcopy
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES
from transformers.utils import logging

from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.modeling.outputs import HfDetrObjectDetectionOutput

from .batch_norm_folding import fold_batch_norms
from .coverage import unoptimised
from .dtypes import choose_dtype
from .heap import freed_memory_is_kept
from .onednn_packing import pack
from .passes import Pass, apply_passes
from .projection_fusion import fuse_projections
from .shape_cache import keep_constants
from .unpadding import image_sizes, run_by_size

logger = logging.get_logger(__name__)

EXACT_PASSES: tuple[Pass, ...] = (fold_batch_norms, fuse_projections)
"""Passes that leave plain layers with other weights: they help on every device and survive an export."""
RUNTIME_PASSES: tuple[Pass, ...] = (keep_constants, pack)
"""Passes that keep results or use operators of this process. They help in Python only; a compiler has no use for
them."""


class OptimizedHfDetrForObjectDetection(HfDetrForObjectDetection):
    """A detector for inference only, made by `optimize_for_inference`.

    It is called like the plain model, without labels, and always runs without gradients.
    """

    channels_last: bool
    removes_padding: bool

    @torch.no_grad()
    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, labels: None = None, **options: Any
    ) -> HfDetrObjectDetectionOutput:
        """Detect objects; arguments and outputs as in `HfDetrForObjectDetection`.

        Images are converted to the dtype of the model. A mask without padding is dropped. On a CPU images of different
        sizes, padded to a batch, run without their padding, and images of one size run together. Each image gets what
        it would get alone, and `encoder_last_hidden_state`, whose length would differ, is None. The padding stays
        where attentions or hidden states are asked for, where the model is compiled and where the backbone does not
        convolve.

        Raises:
            ValueError: when labels are given.
        """
        if labels is not None:
            raise ValueError("An optimised model computes no losses: give the labels to the model it was made from.")
        if pixel_mask is not None and bool(pixel_mask.all()):
            pixel_mask = None
        asks_for_more = any(value for name, value in options.items() if name.startswith("output_"))
        if pixel_mask is not None and self.removes_padding and pixel_values.device.type == "cpu" and not asks_for_more:
            sizes = image_sizes(pixel_mask)
            if sizes is not None:
                return self.without_padding(pixel_values, sizes, options.get("return_dict", True))
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        with freed_memory_is_kept() if pixel_values.device.type == "cpu" else nullcontext():
            return super().forward(pixel_values.to(self.dtype, memory_format=layout), pixel_mask, **options)

    def without_padding(self, pixel_values: Tensor, sizes: list[tuple[int, int]], return_dict: bool | None) -> Any:
        """Detect objects in images of the given heights and widths, cut out of their padded batch.

        Returns:
            the outputs, or the tuple of them where `return_dict` is False.
        """
        fields: dict[str, Any] = {**run_by_size(self.forward, pixel_values, sizes)}
        outputs = HfDetrObjectDetectionOutput(**fields)
        return outputs if return_dict in (None, True) else outputs.to_tuple()

    def train(self, mode: bool = True) -> "OptimizedHfDetrForObjectDetection":
        """Stay in evaluation mode. Raises ValueError for training."""
        if mode:
            raise ValueError("An optimised model cannot be trained: train the model it was made from.")
        return super().train(False)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises ValueError: fused weights have no place in the saved layout."""
        raise ValueError("An optimised model cannot be saved: save the model it was made from, and optimise it again.")


# The pipeline complains about classes whose names are not in this table.
MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES["hf_detr_optimized"] = OptimizedHfDetrForObjectDetection.__name__


def optimize_for_inference(
    model: HfDetrForObjectDetection,
    dtype: torch.dtype | str | None = None,
    channels_last: bool | None = None,
    compile: bool | str = False,
    copy: bool = True,
) -> OptimizedHfDetrForObjectDetection:
    """Return the same detector, faster, for inference only; in float32 its outputs are equal up to rounding.

    Batch norms are folded into convolutions, linear layers that read the same tensor become one, images are laid out
    channels last, masks without padding are dropped, on a CPU padding is not computed, and results that depend only on
    the shape of the images are computed once for each shape. An attention or a norm that none of this covers runs as
    it is, and a warning names its class.

    Args:
        model: any detector of the family; its mode does not matter.
        dtype: the dtype of the weights. None keeps it, "auto" takes bfloat16 where the device is fast with it. Boxes
            are computed in float32 whatever the dtype.
        channels_last: whether images and maps are laid out channels last. None stands for yes where the backbone is
            made of convolutions.
        compile: True, or a mode of `torch.compile`, to compile the model. Each new shape of images is compiled anew.
        copy: whether `model` stays as it is. Otherwise it is changed itself, which saves its memory and cannot be
            undone.

    Raises:
        ValueError: for a model that is optimised already, one that is no detector of this package, or a dtype that is
            no floating point type.
    """
    if isinstance(model, OptimizedHfDetrForObjectDetection):
        raise ValueError("This model is optimised already.")
    if not isinstance(model, HfDetrForObjectDetection):
        raise ValueError(f"Expected an HfDetrForObjectDetection, got {type(model).__name__}.")
    dtype = choose_dtype(dtype, model)
    optimised = (deepcopy(model) if copy else model).eval().requires_grad_(False)
    # A compiler cannot look into the tables of constants, and it chooses its own layouts of weights.
    apply_passes(optimised, EXACT_PASSES if compile else EXACT_PASSES + RUNTIME_PASSES)
    for name, count in unoptimised(optimised).items():
        logger.warning(f"{name} ({count} times in this model) runs unoptimised: no pass of hf_detr knows it.")
    optimised.__class__ = OptimizedHfDetrForObjectDetection
    backbone = optimised.model.backbone
    convolves = is_convolutional(backbone.body)
    optimised.channels_last = convolves if channels_last is None else channels_last
    # Images cut into patches keep their padding, so that the patches fit; a compiler would begin anew for each shape.
    optimised.removes_padding = convolves and not compile
    optimised.to(dtype)
    if optimised.channels_last:
        backbone.to(memory_format=torch.channels_last)
    if compile:
        optimised.model.compile(mode=compile if isinstance(compile, str) else None, dynamic=False)
    return optimised


def is_convolutional(body: nn.Module) -> bool:
    """Return whether a backbone convolves with kernels larger than their stride, and does not only cut patches."""
    return any(isinstance(m, nn.Conv2d) and m.kernel_size[0] > m.stride[0] for m in body.modules())
