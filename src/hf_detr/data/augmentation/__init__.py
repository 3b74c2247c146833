"""Augmentation: the published recipe, strong mixing, and the choices by name."""
