"""The two stages of the tests: `make test` and `make sweep`."""

ARCHITECTURES = [
    "detr-resnet-50",
    "conditional-detr-resnet-50",
    "dn-detr-resnet-50",
    "deformable-detr-resnet-50-refine",
    "deformable-detr-resnet-50-two-stage",
    "dn-deformable-detr-resnet-50",
    "dino-resnet-50-4scale",
    "dino-swin-large-4scale",
    "tiny",
]
"""One preset of each architecture. The others combine what these have, or differ by backbone, dilation or levels."""
