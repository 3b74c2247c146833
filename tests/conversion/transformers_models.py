"""transformers' own DETR models, made small and filled with random weights: the oracles of the conversion."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DabDetrConfig,
    DabDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    PreTrainedModel,
)

_CLASSES = {
    "detr": (DetrConfig, DetrForObjectDetection),
    "conditional_detr": (ConditionalDetrConfig, ConditionalDetrForObjectDetection),
    "dab-detr": (DabDetrConfig, DabDetrForObjectDetection),
    "deformable_detr": (DeformableDetrConfig, DeformableDetrForObjectDetection),
}
_SIZES = {
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 8,
    "num_queries": 9,
    "num_labels": 5,
}
REFINE = {"with_box_refine": True}
TWO_STAGE = {"with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 6}


def timm_backbone(*indices: int, **overrides: Any) -> dict[str, Any]:
    """The smallest ResNet of timm, as transformers writes it."""
    return {"model_type": "timm_backbone", "backbone": "test_resnet", "out_indices": list(indices), **overrides}


def resnet_backbone(*stages: str) -> dict[str, Any]:
    """The smallest ResNet of transformers that timm has, too."""
    sizes = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    return {"model_type": "resnet", "out_features": list(stages), **sizes}


def transformers_model(model_type: str, **overrides: Any) -> PreTrainedModel:
    """A model of transformers in evaluation mode with no weight, bias or statistic at a trivial value."""
    config_class, model_class = _CLASSES[model_type]
    width = "hidden_size" if model_type == "dab-detr" else "d_model"
    indices = (2, 3, 4) if model_type == "deformable_detr" else (4,)
    config = config_class(**{**_SIZES, width: 32, "backbone_config": timm_backbone(*indices), **overrides})
    model = model_class(config).eval()
    if model_type != "dab-detr":  # whose forward pass mixes precisions
        model = model.double()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: PreTrainedModel) -> None:
    """Draw every tensor anew, weights so that activations keep their size; the same for the same model."""
    generator = torch.Generator().manual_seed(0)
    drawn = set()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or tensor.data_ptr() in drawn:
            continue
        drawn.add(tensor.data_ptr())
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif "embed" in name and tensor.ndim == 2 and "class" not in name and "bbox" not in name:
            tensor.copy_(noise)
        elif tensor.ndim > 1:
            tensor.copy_(noise * 1.5 / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(noise * 0.2 + name.endswith("weight"))


def padded_batch(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Two images, the second smaller and padded: pixel_values and pixel_mask."""
    generator = torch.Generator().manual_seed(1)
    pixel_values = torch.randn(2, 3, 96, 128, generator=generator, dtype=model.dtype)
    pixel_mask = torch.ones(2, 96, 128, dtype=torch.int64)
    pixel_mask[1, 70:] = 0
    pixel_mask[1, :, 90:] = 0
    return pixel_values * pixel_mask[:, None], pixel_mask


def save(model: PreTrainedModel, folder: Path, **arguments: Any) -> Path:
    """Save a model as transformers does."""
    model.save_pretrained(folder, **arguments)
    return folder
