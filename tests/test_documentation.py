"""The documentation against the code: presets, parameter counts, Python examples and links."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hf_detr import available_presets

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MODELS = ROOT / "docs" / "models.md"
CARDS = ROOT / "model_cards"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(CARDS.glob("*.md"))]


@pytest.fixture(scope="module")
def model_table() -> Iterator[ModuleType]:
    """The script that measures the models and writes the pages."""
    sys.path.insert(0, str(ROOT / "docs" / "generate"))
    try:
        yield importlib.import_module("model_table")
    finally:
        sys.path.pop(0)


def row_of(preset: str, text: str, section: str) -> str:
    """The row of a preset in the table below a heading."""
    below = text.split(f"## {section}\n")[1]
    rows = [line for line in below.splitlines() if line.startswith((f"| `{preset}` ", f"| [`{preset}`]"))]
    assert rows, f"no row of {preset} below {section}: run python docs/generate/model_table.py"
    return rows[0]


@pytest.mark.parametrize("preset", available_presets())
def test_counts_are_those_of_the_model(preset: str, model_table: ModuleType):
    total, trained = model_table.parameters(model_table.build(preset))
    assert f"| {total:,} | {trained:,} |" in row_of(preset, MODELS.read_text(), "Results and sizes")
    assert f"{total:,} ({trained:,} trained)" in (CARDS / f"{preset}.md").read_text()
    assert row_of(preset, README.read_text(), "Models").endswith(f"| {total / 1e6:.1f} |")


@pytest.mark.parametrize("preset", available_presets())
def test_differences_are_those_of_the_preset(preset: str, model_table: ModuleType):
    row = row_of(preset, MODELS.read_text(), "The family, as differences")
    told = row.split(" | ")[2].removesuffix(" |")
    changes = model_table.differences(preset)
    assert changes
    assert told == ", ".join(model_table.show(name, value) for name, value in changes.items())


def test_every_published_preset_says_where_its_weights_are(model_table: ModuleType):
    assert [*model_table.PUBLISHED, "tiny"] == available_presets()
    for preset, published in model_table.PUBLISHED.items():
        assert published.weights in row_of(preset, MODELS.read_text(), "Published weights")
        card = (CARDS / f"{preset}.md").read_text()
        assert published.weights in card
        assert published.paper.arxiv in card
        assert "license: apache-2.0" in card


def test_there_is_no_card_without_a_preset():
    assert sorted(card.stem for card in CARDS.iterdir()) == sorted(available_presets())


def python_blocks() -> list:
    return [
        pytest.param(block, id=f"{page.stem}-{index}")
        for page in PAGES
        for index, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_python_examples_name_what_exists(block: str):
    presets = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_preset":
            presets.add(node.args[0].value)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_published_checkpoint":
            presets.add(node.args[1].value)
    assert presets <= set(available_presets())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_fits_on_a_few_screens():
    assert len(README.read_text().splitlines()) <= 150


def test_commands_of_the_pages_exist():
    from typer.testing import CliRunner

    from hf_detr.cli import app

    text = "\n".join(page.read_text() for page in PAGES)
    commands = re.findall(r"^hf-detr (?!bench)(\w+)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert {"doctor", "train", "eval", "predict", "push"} <= {name for name, _ in commands}
    for name, arguments in commands:
        help_text = CliRunner().invoke(app, [name, "--help"], terminal_width=200).stdout
        for option in re.findall(r"(?<!\S)--[\w-]+", arguments):
            assert option in help_text, f"hf-detr {name} {option}"


def test_files_named_by_the_architecture_page_exist():
    """A path in the code font is one of the package, of the repository, or a name in the folder named before it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:[\w.]+/)+(?:\w+\.(?:py|md))?)`", text))
    assert len(named) > 20
    assert [name for name in named if not ((ROOT / "src/hf_detr" / name).exists() or (ROOT / name).exists())] == []
