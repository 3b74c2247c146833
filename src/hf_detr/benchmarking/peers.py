"""Builds the detectors of others with random weights, in the published sizes.

Every function imports what it builds, so that a missing package leaves out only its own detectors.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .contest import SkipContestant

NUM_LABELS = 91

# To our presets the class of transformers with the same architecture, and how its defaults differ. DN-DETR detects as
# DAB-DETR does. Where transformers has no such model there is no row.
COUNTERPARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "detr-resnet-50": ("Detr", {}),
    "detr-resnet-50-dc5": ("Detr", {"dilation": True}),
    "detr-resnet-101": ("Detr", {"backbone": "resnet101"}),
    "detr-resnet-101-dc5": ("Detr", {"backbone": "resnet101", "dilation": True}),
    "conditional-detr-resnet-50": ("ConditionalDetr", {}),
    "dab-detr-resnet-50": ("DabDetr", {}),
    "dn-detr-resnet-50": ("DabDetr", {}),
    "deformable-detr-resnet-50": ("DeformableDetr", {}),
    "deformable-detr-resnet-50-single-scale": ("DeformableDetr", {"num_feature_levels": 1}),
    "deformable-detr-resnet-50-single-scale-dc5": ("DeformableDetr", {"num_feature_levels": 1, "dilation": True}),
    "deformable-detr-resnet-50-refine": ("DeformableDetr", {"with_box_refine": True}),
    "deformable-detr-resnet-50-two-stage": ("DeformableDetr", {"with_box_refine": True, "two_stage": True}),
}
# To presets without a counterpart the nearest model that transformers has: the same encoder and as many queries.
NEAREST: dict[str, tuple[str, dict[str, Any]]] = {
    "dab-deformable-detr-resnet-50": ("DeformableDetr", {"with_box_refine": True}),
    "dn-deformable-detr-resnet-50": ("DeformableDetr", {"with_box_refine": True}),
    "dino-resnet-50-4scale": (
        "DeformableDetr",
        {"with_box_refine": True, "two_stage": True, "num_queries": 900, "two_stage_num_proposals": 900},
    ),
}
REAL_TIME = {"RT-DETR R50": "RTDetr", "RT-DETRv2 R50": "RTDetrV2", "D-FINE": "DFine"}
TORCHVISION = {
    "Faster R-CNN R50": "fasterrcnn_resnet50_fpn",
    "Mask R-CNN R50": "maskrcnn_resnet50_fpn",
    "RetinaNet R50": "retinanet_resnet50_fpn",
    "FCOS R50": "fcos_resnet50_fpn",
    "SSDlite MobileNetV3 (320x320)": "ssdlite320_mobilenet_v3_large",
}


def counterpart(preset: str, *, nearest: bool = False, **overrides: Any) -> PreTrainedModel:
    """Return the model of transformers with the architecture of a preset, or the nearest one.

    Raises:
        SkipContestant: transformers has none.
    """
    row = COUNTERPARTS.get(preset) or (NEAREST.get(preset) if nearest else None)
    if row is None:
        raise SkipContestant(f"transformers has no model with the architecture of {preset}")
    kind, differences = row
    return transformers_model(kind, **differences, **overrides)


def transformers_model(kind: str, **differences: Any) -> PreTrainedModel:
    """Return a detector of transformers with random weights, and with its defaults except for the differences."""
    transformers = import_module("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=NUM_LABELS, **timm_backbone(kind, differences))
    return getattr(transformers, f"{kind}ForObjectDetection")(config)


def timm_backbone(kind: str, differences: dict[str, Any]) -> dict[str, Any]:
    """Return the differences, with the name of a ResNet written out as these configurations take it."""
    if "backbone" not in differences:
        return differences
    others = {name: value for name, value in differences.items() if name != "backbone"}
    backbone = {
        "model_type": "timm_backbone",
        "backbone": differences["backbone"],
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [1, 2, 3, 4] if kind == "Detr" else [2, 3, 4],
    }
    if others.pop("dilation", False):
        backbone["output_stride"] = 16
    return {"backbone_config": backbone, **others}


def transformers_forward(model: nn.Module, pixels: Tensor) -> Callable[[], Any]:
    """Return the forward pass as its users call it: with the mask of real pixels, which is all ones here."""
    mask = torch.ones(len(pixels), *pixels.shape[2:], dtype=torch.int64, device=pixels.device)
    return lambda: model(pixel_values=pixels, pixel_mask=mask)


def torchvision_model(name: str) -> nn.Module:
    """Return a detector of torchvision that takes its images as they are.

    With random weights nearly all scores are alike, so that either everything passes the thresholds or nothing does.
    Thresholds and numbers of boxes are the defaults.
    """
    detection = import_module("torchvision.models.detection")
    return getattr(detection, name)(weights=None, weights_backbone=None)


def torchvision_forward(model: nn.Module, pixels: Tensor) -> Callable[[], Any]:
    """Return the forward pass at the size of the images, which its own resizing leaves as they are."""
    height, width = pixels.shape[2:]
    transform: Any = model.transform  # of torchvision, which has no types
    if getattr(transform, "fixed_size", None) is None:
        transform.min_size, transform.max_size = (min(height, width),), max(height, width)
    images = list(pixels)
    return lambda: model(images)


def yolo_model() -> nn.Module:
    """Return YOLOv8n of ultralytics, the network without its non-maximum suppression."""
    require("ultralytics")
    return import_module("ultralytics").YOLO("yolov8n.yaml").model


def rf_detr_model() -> nn.Module:
    """Return RF-DETR M with random weights."""
    require("rfdetr")
    return import_module("rfdetr").RFDETRMedium(pretrain_weights=None).model.model


def require(package: str) -> None:
    """Refuse to go on without a package.

    Raises:
        SkipContestant: it is not installed.
    """
    if find_spec(package) is None:
        raise SkipContestant(f"{package} is not installed")
