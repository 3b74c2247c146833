"""Reads text, json, xml and yaml files so that byte order marks do no harm and every failure names its file."""

import codecs
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import yaml

from ..schema import locate

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the mark of UTF-16, and is therefore looked for first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
FIRST_BYTES = 1 << 16
"""The bytes of a file that are read for its first line."""


def read_text(path: Path, replace: bool = False) -> str:
    """Return the text of a file in UTF-8, or in the encoding of its byte order mark.

    Args:
        path: the file.
        replace: whether bytes that cannot be decoded become a replacement character, for files in which only numbers
            matter.

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise locate("the annotation file does not exist", path) from error
    except OSError as error:
        raise locate(f"the annotation file cannot be read ({error.strerror})", path) from error
    return _decoded(content, path, replace)


def read_first_line(path: Path) -> str:
    """Return the first line of a text file, of which only the beginning is read; see `read_text`."""
    with path.open("rb") as file:
        lines = _decoded(file.read(FIRST_BYTES), path, replace=True).splitlines()
    return lines[0] if lines else ""


def _decoded(content: bytes, path: Path, replace: bool) -> str:
    mark, encoding = next(((m, e) for m, e in BYTE_ORDER_MARKS if content.startswith(m)), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding, errors="replace" if replace else "strict")
    except UnicodeDecodeError as error:
        raise locate(f"expected text in UTF-8, but it cannot be decoded ({error}); save it as UTF-8", path) from error


def read_lines(path: Path, replace: bool = False) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around them; see `read_text`."""
    return [line.strip() for line in read_text(path, replace).splitlines() if line.strip()]


def read_json(path: Path, expected: str = "a json file") -> Any:
    """Return the content of a json file.

    Raises:
        DataError: the file is missing or is not json; the message says what was expected.
    """
    text = read_text(path, replace=True)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise locate(f"expected {expected}, but this is not json ({error})", path) from error


def read_xml(path: Path, root: str, expected: str) -> ElementTree.Element:
    """Return the root of an xml file. Entities are refused: no annotation tool writes them, and they can be a trap.

    Args:
        path: the file.
        root: the name that the root must have.
        expected: the words of the message for what the file should be.

    Raises:
        DataError: the file is missing, is not xml, declares entities or has another root.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise locate("the annotation file does not exist", path) from error
    if b"<!ENTITY" in content.replace(b"\0", b""):  # without the zeros of UTF-16
        raise locate(f"expected {expected}, but this xml declares entities, which could read other files", path)
    try:
        found = ElementTree.fromstring(content)
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
        raise locate(f"expected {expected}, but this is not xml ({error})", path) from error
    if found.tag != root:
        raise locate(f"expected {expected} with the root '{root}', found '{found.tag}'", path)
    return found


def read_yaml(path: Path) -> Any:
    """Return the content of a yaml file in which every value stays text: no, on, 1e3, null and dates are names too.

    Raises:
        DataError: the file is missing or is not yaml.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # builds nothing but text, lists and mappings
    except (yaml.YAMLError, RecursionError, TypeError) as error:  # TypeError: a mapping as a key
        raise locate(f"expected a yaml file, but it cannot be read ({error})", path) from error


def mentions(path: Path, *words: str) -> bool:
    """Return whether a text file holds all of some words. Nothing is parsed, so that broken files are seen too."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.replace(b"\0", b"")
    return all(word.encode() in content for word in words)


def number(text: Any) -> Any:
    """Return text that is a number as a float, and everything else as it is, for the check to complain about."""
    if not isinstance(text, str):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def integer(value: Any) -> Any:
    """Return 96.0, "96" and "96.0" as 96, and everything else as it is, for the check to complain about."""
    if isinstance(value, bool):
        return value
    found = number(value)
    return int(found) if isinstance(found, float) and found.is_integer() else value
