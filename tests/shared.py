"""Where real data and complete reference outputs are, if they are there."""

from pathlib import Path

SHARED_FOLDER = Path(__file__).parents[2] / "shared"
