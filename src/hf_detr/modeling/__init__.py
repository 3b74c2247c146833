"""The network and everything that travels with its weights."""
