"""DETR-family object detectors for the Hugging Face ecosystem."""
