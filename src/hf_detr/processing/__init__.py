"""Turns pictures and annotations into tensors, and predictions into detections. The files travel with the weights."""
