"""The suite that measures forward passes of the presets."""

from collections.abc import Iterator

from torch import nn

from hf_detr import HfDetrConfig

from .contest import Comparison
from .models import forward_contestant, openvino_forms, our_forms, our_model, sizes, their_forms
from .options import BenchOptions
from .peers import COUNTERPARTS, NEAREST

# One preset of each architecture. The others differ in depth or resolution, and can be asked for.
PRESETS = (
    "detr-resnet-50",
    "conditional-detr-resnet-50",
    "dab-detr-resnet-50",
    "deformable-detr-resnet-50",
    "deformable-detr-resnet-50-two-stage",
    "dino-resnet-50-4scale",
)
QUICK_PRESETS = ("detr-resnet-50", "deformable-detr-resnet-50", "dino-resnet-50-4scale")
BATCHES = (1, 8)


def comparisons(options: BenchOptions) -> Iterator[Comparison]:
    """Yield each preset at each size, on one image and on a batch. Presets without a peer meet their plain form."""
    presets = options.presets or (QUICK_PRESETS if options.quick else PRESETS)
    for preset in presets:
        for height, width in sizes(options):
            for batch in options.batches or ((1,) if options.quick else BATCHES):
                shape = (batch, height, width)
                contestants = [*our_forms(preset, shape, options)]
                baseline = "hf_detr"
                if preset in COUNTERPARTS or preset in NEAREST:
                    contestants += their_forms(preset, shape, options)
                    baseline = "transformers"
                if options.device == "cpu":
                    contestants += openvino_forms(preset, shape, options)
                if preset.startswith("dino-resnet-50"):
                    # DINO should cost no more than our two-stage Deformable DETR of the same size.
                    contestants.append(
                        forward_contestant("hf_detr deformable of this size", as_large_as_dino, shape, options)
                    )
                name = f"{preset}, {height}x{width}, batch {batch}"
                yield Comparison(name, contestants, baseline)


def as_large_as_dino() -> nn.Module:
    """Return our two-stage Deformable DETR with the queries and the feed-forward layers of DINO."""
    dino = HfDetrConfig.from_preset("dino-resnet-50-4scale")
    sizes_of_dino = {name: getattr(dino, name) for name in ("num_queries", "encoder_ffn_dim", "decoder_ffn_dim")}
    return our_model("deformable-detr-resnet-50-two-stage", **sizes_of_dino)
