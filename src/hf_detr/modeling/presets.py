"""Each published model as its difference from another. A row may start from a parent row."""

import difflib
from typing import Any

# The 91 category ids of COCO; ids without a category are "N/A". Published heads use these ids as labels.
_COCO_NAMES = (
    "N/A,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,N/A,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,N/A,backpack,umbrella,N/A,N/A,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,N/A,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,N/A,dining table,N/A,N/A,toilet,N/A,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,N/A,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
).split(",")

_PRESETS: dict[str, dict[str, Any]] = {
    # Carion et al. 2020, facebookresearch/detr
    "detr-resnet-50": {"id2label": dict(enumerate(_COCO_NAMES))},
    "detr-resnet-50-dc5": {"parent": "detr-resnet-50", "dilation": True},
    "detr-resnet-101": {"parent": "detr-resnet-50", "backbone": "resnet101"},
    "detr-resnet-101-dc5": {"parent": "detr-resnet-101", "dilation": True},
}


def available_presets() -> list[str]:
    """Names that `HfDetrConfig.from_preset` accepts."""
    return list(_PRESETS)


def get_preset(name: str) -> dict[str, Any]:
    """All fields of a preset that differ from the defaults of `HfDetrConfig`, parents resolved.

    Raises:
        ValueError: for an unknown name; the nearest ones are suggested.
    """
    if name not in _PRESETS:
        nearest = difflib.get_close_matches(name, _PRESETS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Available: {', '.join(_PRESETS)}."
        raise ValueError(f"There is no preset '{name}'. {hint}")
    fields = dict(_PRESETS[name])
    parent = fields.pop("parent", None)
    return {**get_preset(parent), **fields} if parent else fields
