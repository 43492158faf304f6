"""Committed checkpoints: which there are, whether one is whole, and what becomes of a bad one.

A folder `checkpoint-N` with a `COMMIT.json` is a checkpoint after N optimizer steps. The file was
written last, names every other file with its size and hash, and came with them under this name in
one rename (see `launcher.records.commits`). A folder of that name without it is none.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from launcher.records import files
from launcher.records.complete import digest
from launcher.records.ownership import distrust

COMMIT = "COMMIT.json"
SCHEMA_VERSION = 1
_NUMBERED = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class File:
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint's folder."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What a checkpoint says of itself."""

    schema_version: int
    step: int
    """Optimizer steps that were done."""
    world: int
    """Trainer processes."""
    zero_stage: int
    """0: written without DeepSpeed."""
    offload: str
    """What of DeepSpeed's states lay in host memory: `none`, `optimizer`, `all`."""
    written: float
    """Seconds since the epoch."""
    files: tuple[File, ...]
    trainer: str = ""
    """The class that wrote it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""
    """SHA-256 of all the rest, so that a damaged COMMIT.json is known as one."""

    def sealed(self) -> Commit:
        bare = replace(self, seal="")
        return replace(bare, seal=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int
    world: int
    zero_stage: int
    offload: str = "none"

    def __str__(self) -> str:
        return self.path.name


class NotCommitted(ValueError):
    """A folder that is called a checkpoint, and whose COMMIT.json is missing or damaged."""


def path_of(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"


def read(path: Path) -> Commit:
    """What the checkpoint in `path` says of itself. Raises NotCommitted, OSError."""
    if path.is_symlink():
        raise NotCommitted("it is a symbolic link")
    try:
        commit = files.read_json(path / COMMIT, Commit)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotCommitted(f"its {COMMIT} cannot be read: {error}") from error
    except NotADirectoryError as error:
        raise NotCommitted("it is no folder") from error
    except IsADirectoryError as error:
        raise NotCommitted(f"its {COMMIT} is no file") from error
    if commit is None:
        raise NotCommitted(f"it has no {COMMIT}")
    if commit.schema_version != SCHEMA_VERSION:
        raise NotCommitted(f"its {COMMIT} is of another schema, {commit.schema_version}")
    if commit != commit.sealed():
        raise NotCommitted(f"its {COMMIT} was changed after it was written")
    if path.name != path_of(path.parent, commit.step).name:
        raise NotCommitted(f"its {COMMIT} is that of step {commit.step}")
    return commit


def numbered(folder: Path) -> tuple[Path, ...]:
    """Every folder that is called a checkpoint, committed or not, the oldest step first.
    Raises OSError."""
    found: list[tuple[int, Path]] = []
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            named = _NUMBERED.fullmatch(path.name)
            if named is not None:
                found.append((int(named[1]), path))
    return tuple(path for _, path in sorted(found))


def committed(folder: Path) -> tuple[Checkpoint, ...]:
    """The checkpoints whose COMMIT.json is whole, the oldest first. No other file is read.

    Raises OSError: one that the disk does not give now may be there all the same.
    """
    found = []
    for path in numbered(folder):
        with suppress(NotCommitted):
            found.append(_checkpoint(path, read(path)))
    return tuple(found)


def at(path: Path) -> Checkpoint:
    """The checkpoint in `path`. Raises NotCommitted, OSError."""
    return _checkpoint(path, read(path))


def newest_step(folder: Path) -> int:
    """The step of the newest committed checkpoint; 0 where there is none. Raises OSError."""
    return max((checkpoint.step for checkpoint in committed(folder)), default=0)


def out_of_place(path: Path, commit: Commit) -> str | None:
    """What is wrong with the files of a checkpoint without reading them, or None.

    A file that the commit does not name is wrong too, and one that others could have written: what
    is loaded from here can run code. Raises OSError.
    """
    wanted = {file.path: file for file in commit.files}
    there = contents(path)
    for name in sorted(wanted.keys() | there):
        file = wanted.get(name)
        if file is None:
            if name != COMMIT:
                return f"{name} is not in its {COMMIT}"
            continue
        if name not in there:
            return f"{name} is missing"
        found = (path / name).lstat()
        if not stat.S_ISREG(found.st_mode):
            return f"{name} is no file"
        if found.st_size != file.size:
            return f"{name} has {found.st_size} bytes, {COMMIT} says {file.size}"
    own = (path, *(path / name for name in sorted(there)))
    return next((why for why in map(distrust, own) if why is not None), None)


def contents(path: Path) -> set[str]:
    """Everything below `path` but folders, by its path from there. Links are not followed.

    Raises OSError, but for a folder that is not there (another node may not see it at once).
    """

    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return {
        str((Path(folder) / name).relative_to(path))
        for folder, folders, names in os.walk(path, onerror=unread)
        for name in [*names, *(each for each in folders if (Path(folder) / each).is_symlink())]
    }


def damaged(path: Path, file: File) -> str | None:
    """In words, whether this file's hash is another now, or None. Raises OSError."""
    if digest(path / file.path) != file.sha256:
        return f"{file.path} is not what was written"
    return None


def unfit(checkpoint: Checkpoint, processes: int, zero_stage: int, offload: str) -> str | None:
    """Why a training on so many processes, with these settings, cannot go on from it, or None."""
    if checkpoint.world != processes:
        return (
            f"{checkpoint} was written by {_counted(checkpoint.world)}, the plan has {processes}:"
            " the data would come in another order"
        )
    if checkpoint.zero_stage != zero_stage:
        return f"{checkpoint} is of ZeRO {checkpoint.zero_stage}, the plan has ZeRO {zero_stage}"
    if checkpoint.offload != offload:
        return (
            f"{checkpoint} was written with offload {checkpoint.offload}, the plan has {offload}:"
            " their optimizers' states differ"
        )
    return None


def put_aside(path: Path, why: str) -> Path:
    """Take a folder that is called a checkpoint, and need not be one, out of use, and say so.

    Returns where it is. Raises OSError.
    """
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.bad" if number == 1 else f"{path.name}.bad-{number}")
        if not os.path.lexists(aside):
            break
        number += 1
    path.rename(aside)
    files.sync_folder(path.parent)
    print(f"{path.name} is not used: {why}. It is kept as {aside.name}", flush=True)
    return aside


def set_all_aside(folder: Path, why: str) -> None:
    """Take every checkpoint out of use, so that the next attempt begins anew. Raises OSError."""
    for path in reversed(numbered(folder)):
        put_aside(path, why)


def _checkpoint(path: Path, commit: Commit) -> Checkpoint:
    return Checkpoint(path, commit.step, commit.world, commit.zero_stage, commit.offload)


def _counted(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"
