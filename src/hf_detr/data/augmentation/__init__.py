"""Augmentation of training images: the published recipe, strong mixing, and the choices by name."""
