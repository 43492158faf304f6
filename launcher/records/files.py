"""Writing so that a reader, or a crash at any moment, meets either the old file or the new one."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
_PROBE = 2**16
"""Bytes: more than a traceback needs."""


def private_folder(path: Path) -> Path:
    """Make `path` and its missing parents, each 0700 under any umask. Returns `path`."""
    if not path.is_dir():
        private_folder(path.parent)
        try:
            path.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            return path
        path.chmod(PRIVATE_FOLDER)
    return path


def private_copy(source: Path, target: Path) -> None:
    """Copy a file to where none is, as 0600. Raises OSError."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)


def _write_aside(path: Path, data: bytes) -> Path:
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), PRIVATE_FILE)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return aside


def sync_folder(path: Path) -> None:
    """What was made, renamed or removed in `path` is on disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Write `data` to `path` (0600), on disk when this returns. Raises OSError."""
    aside = _write_aside(path, data)
    try:
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written in `folder` now, in words; None: it can."""
    try:
        _write_aside(folder / "probe", bytes(_PROBE)).unlink()
    except OSError as error:
        return str(error)
    return None


def claim(path: Path, data: bytes) -> bool:
    """Write `data` to `path` unless something is there. True for the one caller who wrote it.

    A hard link puts the whole file in place in one step, over NFS too. Raises OSError.
    """
    aside = _write_aside(path, data)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def append_line(path: Path, line: str) -> None:
    """Add a line to the file at `path` (0600), which is no link. Raises OSError."""
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, how, PRIVATE_FILE)
    try:
        os.write(descriptor, (line + "\n").encode())
    finally:
        os.close(descriptor)


def encode(value: Any) -> bytes:
    """`value` (a dataclass or plain data) as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_json(path: Path, value: Any) -> None:
    replace(path, encode(value))


def read_json(path: Path, kind: type[T]) -> T | None:
    """The value in `path`, or None where there is no file. Raises msgspec.ValidationError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=kind)
