"""The command `hf-detr bench`, which measures our models and the detectors of others against each other, in turns."""

from .registry import Program, Suite

PRODUCT = Program(
    name="hf-detr bench",
    words=("-m", "hf_detr.cli", "bench"),
    suites={
        "inference": Suite(
            "hf_detr.benchmarking.suite_inference",
            "Forward passes of presets, plain and optimised, against the same architecture of transformers.",
        ),
        "detectors": Suite(
            "hf_detr.benchmarking.suite_detectors",
            "Forward passes of detectors of every kind: ours, transformers', torchvision's, others if installed.",
        ),
        "mixed_sizes": Suite(
            "hf_detr.benchmarking.suite_mixed_sizes", "Images of different sizes, one by one and as one batch."
        ),
        "pipeline": Suite(
            "hf_detr.benchmarking.suite_pipeline",
            "From a JPEG file to detections, with the time outside the forward pass apart.",
        ),
        "training_step": Suite(
            "hf_detr.benchmarking.suite_training_step",
            "One optimizer step: forward, matching and losses, backward, update.",
        ),
    },
)
"""The suites that users measure on their machine. Maintainers have a program of their own with more suites."""

__all__ = ["PRODUCT", "Program", "Suite"]
