"""Finds real data and complete reference outputs, if they are there."""

from pathlib import Path

SHARED_FOLDER = Path(__file__).parents[2] / "shared"
