"""Reads from the configuration of a model what its image processor needs: classifier, channels and statistics.

A configuration is any object with the fields of `HfDetrConfig` that are named below; its class is not needed here.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .post_processing import Classification


def classification_of(config: Any) -> Classification:
    """Return how the logits of a model are read. Every `config.classification` except "softmax" trains sigmoids."""
    return "softmax" if config.classification == "softmax" else "sigmoid"


def pixel_statistics(config: Any) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, on the scale 0 to 1, with which a backbone was pretrained.

    timm knows them for the pretrained weights of `config.backbone`, without network access. They are used whether or
    not a model starts from these weights: (0.5, 0.5, 0.5) for `tf_efficientnet_lite0`, ImageNet's values for ResNets.
    A backbone of which timm knows no pretrained weights gets ImageNet's values.

    timm fits three-channel weights to `config.num_channels`: it repeats their channels in turn, or sums them for a
    single one. The statistics are repeated likewise, or averaged.

    Raises:
        ValueError: timm knows the backbone, but not the pretrained weights that its name or `backbone_kwargs` ask for.
    """
    mean, std = _pretrained_statistics(config.backbone, getattr(config, "backbone_kwargs", None) or {})
    channels = getattr(config, "num_channels", 3)
    return _for_channels(mean, channels), _for_channels(std, channels)


def _pretrained_statistics(backbone: str, arguments: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    from timm.models import get_pretrained_cfg

    given, overlay = arguments.get("pretrained_cfg"), dict(arguments.get("pretrained_cfg_overlay") or {})
    if isinstance(given, Mapping):
        overlay = {**given, **overlay}
    elif isinstance(given, str):  # this tag replaces the tag in the name
        backbone = f"{backbone.partition('.')[0]}.{given}"
    try:
        known = get_pretrained_cfg(backbone)
    except RuntimeError as error:
        raise ValueError(f"backbone={backbone!r}: {error}") from error
    return (
        overlay.get("mean") or getattr(known, "mean", None) or IMAGENET_DEFAULT_MEAN,
        overlay.get("std") or getattr(known, "std", None) or IMAGENET_DEFAULT_STD,
    )


def _for_channels(values: Sequence[float], num_channels: int) -> list[float]:
    if num_channels == 1:
        return [sum(values) / len(values)]
    return list(islice(cycle(values), num_channels))
