"""Every preset made small enough for a test, and data to feed it."""

from typing import Any

import torch
from torch import Tensor

from hf_detr import HfDetrConfig, HfDetrForObjectDetection

NUM_LABELS = 3
_TRANSFORMER = {
    "num_labels": NUM_LABELS,
    "d_model": 32,  # the least that 32 normalisation groups allow
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 10,
}
_RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
_SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}


def tiny_config(preset: str, **overrides: Any) -> HfDetrConfig:
    """The configuration of a preset with every choice kept and every size reduced."""
    config = HfDetrConfig.from_preset(preset)
    sizes = {**_TRANSFORMER, "backbone_kwargs": _SWIN if config.backbone.startswith("swin") else _RESNET}
    if config.denoising == "contrastive":
        sizes["num_denoising"] = 12
    return HfDetrConfig.from_preset(preset, **{**sizes, **overrides})


def tiny_model(preset: str, seed: int = 0, **overrides: Any) -> HfDetrForObjectDetection:
    """A small model of a preset, in evaluation mode, the same for the same seed."""
    torch.manual_seed(seed)
    return HfDetrForObjectDetection(tiny_config(preset, **overrides)).eval()


def images(count: int, height: int = 96, width: int = 96, seed: int = 0) -> Tensor:
    """Normal noise, (count, 3, height, width). At 96 pixels the coarsest of five levels still has four cells."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def labels(*counts: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Random objects: `counts` of them in each image."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image_id": torch.tensor([100 + index]),
            "class_labels": torch.randint(0, NUM_LABELS, (count,), generator=generator),
            "boxes": torch.cat(
                [
                    0.3 + 0.4 * torch.rand(count, 2, generator=generator),
                    0.1 + 0.3 * torch.rand(count, 2, generator=generator),
                ],
                dim=-1,
            ),
        }
        for index, count in enumerate(counts)
    ]


def scenes(count: int, size: int = 96, seed: int = 0) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images of two or three rectangles, coloured by class on faint noise, and their labels."""
    pixel_values = 0.1 * images(count, size, size, seed)
    annotations = labels(*[2 + index % 2 for index in range(count)], seed=seed)
    for image, annotation in zip(pixel_values, annotations, strict=True):
        for class_label, box in zip(annotation["class_labels"], annotation["boxes"], strict=True):
            left, top = ((box[:2] - box[2:] / 2) * size).round().int().tolist()
            right, bottom = ((box[:2] + box[2:] / 2) * size).round().int().tolist()
            image[class_label, top:bottom, left:right] += 2.0
    return pixel_values, annotations


def overfit(model: HfDetrForObjectDetection) -> tuple[dict[str, float], dict[str, float]]:
    """Twenty steps on two scenes → the loss terms of the first step and of the last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    pixel_values, annotations = scenes(2)
    terms = []
    for _ in range(20):
        output = model(pixel_values, labels=annotations)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        terms.append({name: value.item() for name, value in output.loss_dict.items()})
    return terms[0], terms[-1]
