"""Passes and settings that make a model faster on this machine, without a change to what it computes."""
