"""Published checkpoints and transformers folders to our layout."""
