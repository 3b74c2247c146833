"""What annotation tools and their exports write is read, picture by picture and box by box."""

import re
import warnings
from pathlib import Path

import pytest
from layout_writers import NAMES, SPLITS
from tool_writers import TOOLS, WITHOUT_EMPTY, WITHOUT_SPLITS

from hf_detr.data import category_names, load_detection_data

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def boxes_by_picture(dataset):
    """Boxes with their class by the name of their picture, which its first pixel tells."""
    names = category_names(dataset)
    return {
        chr(row["image"].getpixel((0, 0))[0]): {
            (*(round(value, 2) for value in box), names[label])
            for box, label in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
        }
        for row in dataset
    }


def written(split, tool):
    return {name: set(boxes) for name, boxes in SPLITS[split] if boxes or tool not in WITHOUT_EMPTY}


@pytest.mark.parametrize("tool", TOOLS)
def test_reads(tmp_path, tool):
    TOOLS[tool](tmp_path / "data")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        splits = load_detection_data(tmp_path / "data")
    found = {split: boxes_by_picture(dataset) for split, dataset in splits.items()}
    assert sorted(category_names(splits["train"])) == NAMES
    expected = {split: written(split, tool) for split in SPLITS}
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    if tool in WITHOUT_SPLITS:
        assert found["train"] | found["validation"] == expected["train"] | expected["validation"]
        assert len(said) == 1 + (tool in WITHOUT_EMPTY)
        assert any("no validation split found" in message for message in said)
    else:
        assert found == expected


def test_the_page_about_data_names_a_test_for_every_row_and_a_row_for_every_test():
    rows = re.findall(r"^\|.*\| `test_reads\[(\w+)\]` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(TOOLS)
