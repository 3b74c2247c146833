"""Training: the Trainer subclass and what surrounds it."""
