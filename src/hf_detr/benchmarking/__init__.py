"""`hf-detr bench`: our models and the detectors of others, measured one against the other, in turns.

A suite is a module with `comparisons(options) -> Iterator[Comparison]`; this table is all that has to be known of it.
"""

SUITES = {
    "inference": "Forward passes of presets, plain and optimised, against the same architecture of transformers.",
    "detectors": "Forward passes of detectors of every kind: ours, transformers', torchvision's, others if installed.",
    "mixed_sizes": "Images of different sizes, one by one and as one batch.",
    "pipeline": "From a JPEG file to detections, with the time outside the forward pass apart.",
    "training_step": "One optimizer step: forward, matching and losses, backward, update.",
    "matching": "Matching and losses alone, forward and backward, by objects in an image.",
    "deformable_sampling": "The forms of multi-scale deformable sampling.",
    "preprocessing": "From decoded images to a batch of pixels.",
    "evaluation": "COCO metrics by our metric, on faster-coco-eval, and by pycocotools.",
    "import_time": "What `import hf_detr` adds to `import torch, transformers`.",
    "growth": "Time and memory against image area, queries, objects in an image, and batch.",
}
