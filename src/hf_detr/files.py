"""Writes files whole, so that no reader finds half of one, and reads JSON files with errors that name the problem."""

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that a reader finds the old one or the whole new one, never a part.

    Args:
        path: the file. Its folder is made where there is none.
        write: writes to the path that it is given, which lies beside `path`. When it fails, the old file stays and
            what it has written is removed.
    """
    beside = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(beside)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, replacing the old one whole.

    Bytes of a file name that are no text stand in Python's strings as lone surrogates, which UTF-8 does not have. They
    are written as `\\udc80` to `\\udcff`, which JSON reads as the same string.
    """
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Write a JSON file, replacing the old one whole."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path, fields: Collection[str] = (), kind: str = "a JSON object") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file, in UTF-8.
        fields: the names that the object must have.
        kind: a description of the file for the error.

    Raises:
        ValueError: the file is no JSON, holds something else than an object, or lacks a field; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {kind}, found a {type(content).__name__}")
    missing = [name for name in fields if name not in content]
    if missing:
        raise ValueError(f"{path}: expected {kind}, but the field '{missing[0]}' is missing")
    return content
