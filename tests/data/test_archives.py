"""Archives are unpacked once, and none of their members gets out of the folder."""

import io
import tarfile
import zipfile

import pytest
from layout_writers import SPLITS, yolo_yaml

from hf_detr.data import DataError, load_detection_data
from hf_detr.data.archives import is_archive, unpacked


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_detr.data.archives.HF_CACHE_HOME", str(tmp_path / "cache"))


def packed(tmp_path, name):
    yolo_yaml(tmp_path / "around" / "birds")
    path = tmp_path / name
    files = sorted(file for file in (tmp_path / "around").rglob("*") if file.is_file())
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._birds", b"dropping")
            for file in files:
                archive.write(file, file.relative_to(tmp_path / "around"))
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(tmp_path / "around"))
    return path


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar", "birds.tar.gz", "birds.TGZ.tgz"])
def test_data_are_read_from_an_archive(tmp_path, name):
    path = packed(tmp_path, name)
    assert is_archive(path)
    splits = load_detection_data(path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {s: len(rows) for s, rows in SPLITS.items()}


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path):
    path = packed(tmp_path, "birds.zip")
    folder = unpacked(path)
    marker = folder / "marker"
    marker.touch()
    assert unpacked(path) == folder
    assert marker.exists()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.txt", "x")
    assert unpacked(path) != folder


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "C:\\evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_would_leave_the_folder_is_refused_and_named(tmp_path, name, kind):
    path = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.txt", "x")
            archive.writestr(name, "x")
    else:
        with tarfile.open(path, "w") as archive:
            for member in ("good.txt", name):
                archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    with pytest.raises(DataError, match=rf"bad\.{kind}: the member .*evil\.txt' would be written outside"):
        load_detection_data(path)
    assert not list((tmp_path / "cache").rglob("*.txt"))
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_link_in_a_tar_is_refused(tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(DataError, match=r"the member 'link' is a link or a device"):
        load_detection_data(tmp_path / "bad.tar")


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    path = packed(tmp_path, "birds.zip")
    monkeypatch.setattr("hf_detr.data.archives.LEAST_FREE_BYTES", 1 << 60)
    with pytest.raises(DataError, match=r"birds\.zip: unpacked, it needs .* MB, but .* has \d+ MB left"):
        load_detection_data(path)


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match=r"bad\.zip: expected an archive that can be unpacked \(.*\)$"):
        load_detection_data(tmp_path / "bad.zip")
