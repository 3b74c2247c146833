"""Adds to the site the map of files, the model cards, and the pages of the repository's root.

mkdocs calls the functions named `on_…`; mkdocs.yml names this file as a hook.
"""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "hf_detr"
FROM_ROOT = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    files.append(File.generated(config, "files.md", content=file_map()))
    for path in [*(ROOT / "model_cards").glob("*.md"), *(ROOT / name for name in FROM_ROOT)]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change links that lead from docs/ to the root and back, because on the site both are one folder."""
    if page.file.src_uri in FROM_ROOT:
        return markdown.replace("](docs/", "](")
    return (
        markdown.replace("](../docs/", "](../")
        .replace("](../model_cards/", "](model_cards/")
        .replace("](../CONTRIBUTING.md", "](CONTRIBUTING.md")
    )


def file_map() -> str:
    """Return every file of the package with the first paragraph of its docstring, under a heading for each folder."""
    parts = ["# Map of files", "Each file of the package, and what its docstring says first."]
    for folder in [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if path.is_dir())]:
        files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size]
        rows = [f"| `{path.name}` | {first_line(path)} |" for path in files]
        if rows:
            name = folder.relative_to(PACKAGE.parent).as_posix()
            parts.append("\n".join([f"## {name}\n", "| file | |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def first_line(path: Path) -> str:
    """Return the first paragraph of a module's docstring as the cell of a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", r"\|")
