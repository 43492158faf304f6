"""The site's ledger: what everybody's attempts measured, one small file each, never changed.

    LEDGER/u<uid>/<end of the attempt>-<its name>.json

Whoever may write to the ledger makes a folder of their own in it. What lies there was written by
others: a file counts for the owner of folder and file alone, is read as numbers of known shape and
size, and nothing of it is followed or run. What is taken of the numbers is bounded where they are
used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from launcher.records import files

T = TypeVar("T")

LARGEST_FILE = 2048
USERS = 64
"""Folders that are read: those changed last."""
FILES_OF_USER = 100
"""Files that are read of each: the newest."""
FILES = 400
"""Files that are read in all."""


def add(ledger: Path, when: float, name: str, value: object) -> bool:
    """Write `value` into the caller's folder of the ledger. False where it is there already.

    A ledger that does not exist is made like /tmp: everybody may add a folder, and nobody may
    remove another's. Raises OSError.
    """
    if not ledger.is_dir():
        ledger.mkdir()
        ledger.chmod(0o1777)
    own = ledger / f"u{os.getuid()}"
    if not own.is_dir():
        own.mkdir()
        own.chmod(0o755)
    if own.lstat().st_uid != os.getuid():
        raise PermissionError(0, "another user made this folder", str(own))
    path = own / f"{int(when):012d}-{name}.json"
    if not files.claim(path, msgspec.json.encode(value)):
        return False
    path.chmod(0o644)
    return True


def read(ledger: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """(user id, value) of what the ledger holds, each user's newest first.

    Files that are not what they should be are left out, and limits keep it quick. The caller's own
    come first.
    """
    left = FILES
    for user, folder in _users(ledger):
        names = sorted((name for name in _names(folder) if name.endswith(".json")), reverse=True)
        for name in names[:FILES_OF_USER]:
            if left == 0:
                return
            left -= 1
            data = _content(folder / name, user)
            if data is None:
                continue
            try:
                yield user, msgspec.json.decode(data, type=kind)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                continue


def _users(ledger: Path) -> list[tuple[int, Path]]:
    found = []
    for name in _names(ledger):
        if not (name.startswith("u") and name[1:].isdecimal()):
            continue
        try:
            entry = (ledger / name).lstat()
        except OSError:
            continue
        if stat.S_ISDIR(entry.st_mode) and entry.st_uid == int(name[1:]):
            found.append((entry.st_uid != os.getuid(), -entry.st_mtime, entry.st_uid, name))
    return [(user, ledger / name) for _, _, user, name in sorted(found)[:USERS]]


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _content(path: Path, user: int) -> bytes | None:
    """The bytes of a plain small file of that user; None of anything else."""
    try:
        # A pipe would make an open wait for ever, a link would lead elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        entry = os.fstat(descriptor)
        if not stat.S_ISREG(entry.st_mode) or entry.st_uid != user:
            return None
        if entry.st_size > LARGEST_FILE:
            return None
        return os.read(descriptor, LARGEST_FILE)
    except OSError:
        return None
    finally:
        os.close(descriptor)
