"""Models made ready for use: faster inference."""

from .inference import OptimizedHfDetrForObjectDetection, optimize_for_inference

__all__ = ["OptimizedHfDetrForObjectDetection", "optimize_for_inference"]
