"""Models made ready for use: faster inference."""

from hf_detr.acceleration.inference import OptimizedHfDetrForObjectDetection, optimize_for_inference

__all__ = ["OptimizedHfDetrForObjectDetection", "optimize_for_inference"]
