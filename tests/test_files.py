"""Files that are replaced whole, and JSON files that are read with clear errors."""

import json
from pathlib import Path

import pytest

from hf_detr.files import read_json, replace_file, write_json


def test_an_old_file_stays_when_writing_fails(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fails(beside: Path) -> None:
        beside.write_text("half a fi")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        replace_file(path, fails)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_json_comes_back_as_it_was_written(tmp_path: Path):
    content = {"name": "Ölfaß", "file of bytes": b"\xff.jpg".decode("utf-8", "surrogateescape"), "numbers": [1, 0.5]}
    write_json(tmp_path / "record.json", content)
    assert read_json(tmp_path / "record.json", ("name",)) == content
    assert "Ölfaß" in (tmp_path / "record.json").read_text(encoding="utf-8")


def test_a_byte_order_mark_is_no_part_of_the_content(tmp_path: Path):
    (tmp_path / "record.json").write_text(json.dumps({"a": 1}), encoding="utf-8-sig")
    assert read_json(tmp_path / "record.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[1]", "expected a record of a run, found a list"),
        (b"{}", "expected a record of a run, but the field 'metrics' is missing"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path, ("metrics",), "a record of a run")
    assert str(path) in str(caught.value)
