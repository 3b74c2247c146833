"""Unpacks data given as an archive into the cache, once. Nothing is written outside of the archive's folder."""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from datasets.config import HF_CACHE_HOME

from .schema import DataError, locate

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LEAST_FREE_BYTES = 1 << 30
"""The bytes that stay free on the disk after unpacking."""


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(path: Path, cache: Path | None = None) -> Path:
    """Return the folder into which an archive is unpacked; an archive that was unpacked before is not read again.

    Args:
        path: a zip or tar, packed or not.
        cache: the folder to unpack into; by default hf_detr/data in the cache of the Hugging Face libraries
            (`HF_HOME`).

    Raises:
        DataError: the archive cannot be read, is encrypted, does not fit on the disk, or has a member that would be
            written outside of its folder or that is neither a file nor a folder; the error names the member.
    """
    cache = Path(HF_CACHE_HOME).expanduser() / "hf_detr" / "data" if cache is None else cache
    status = path.stat()
    known_by = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = cache / f"{path.name.split('.')[0]}-{hashlib.sha256(known_by.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpacking-") as scratch:
        inner = Path(scratch) / "data"
        inner.mkdir()
        try:
            is_zip = path.name.lower().endswith(".zip") or zipfile.is_zipfile(path)
            (_unzip if is_zip else _untar)(path, inner)
        except (OSError, RuntimeError, NotImplementedError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise locate(f"expected an archive that can be unpacked ({reason})", path) from error
        try:
            os.replace(inner, target)
        except OSError:
            if not target.is_dir():  # another process may have been faster
                raise
    return target


def _unzip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            _check_name(member.filename, path)
        _check_room(sum(member.file_size for member in members), path, folder)
        archive.extractall(folder)


def _untar(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        for member in members:
            _check_name(member.name, path)
            if not (member.isfile() or member.isdir()):
                raise locate(f"expected files and folders, but the member {member.name!r} is a link or a device", path)
        _check_room(sum(member.size for member in members), path, folder)
        archive.extractall(folder, filter="data")


def _check_name(name: str, path: Path) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in PurePosixPath(plain).parts:
        raise locate(f"the member {name!r} would be written outside of the folder; nothing was unpacked", path)


def _check_room(needed: int, path: Path, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free - LEAST_FREE_BYTES:
        raise DataError(f"{path}: unpacked, it needs {needed >> 20} MB, but {folder.parent} has {free >> 20} MB left")
