"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

from shared import SHARED_FOLDER
from stages import ARCHITECTURES

settings.register_profile("any machine", deadline=None)  # an example takes as long as other programs let it
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a `preset` that repeats an architecture belong to the second stage."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("preset", "tiny") not in ARCHITECTURES:
            item.add_marker(pytest.mark.sweep)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The optional folder of real data and reference outputs beside the repository."""
    if not SHARED_FOLDER.is_dir():
        pytest.skip(f"needs the optional folder {SHARED_FOLDER.name}/ beside the repository")
    return SHARED_FOLDER


@pytest.fixture(scope="session")
def bccd_folder(shared_folder: Path) -> Path:
    """The BCCD blood cells: a real, small COCO data set, flaws included."""
    folder = shared_folder / "data" / "bccd"
    if not folder.is_dir():
        pytest.skip(f"needs {folder.relative_to(shared_folder.parent)}")
    return folder
