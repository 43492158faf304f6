"""`inputs.json`: what a stage was made from, by hash, since its first attempt.

A stage goes on, or counts as done, only with what it began with: its recipe, the run's code, the
stages it builds on, models and data. What somebody means to change, they accept in the journal.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.records import attempts, complete, files, journal
from launcher.records.paths import RunPaths, StagePaths

WHOLE = 64 * 2**20
"""Bytes up to which a file is hashed whole."""
BLOCK, BLOCKS = 2**20, 16
"""Of a larger one: its size and so many blocks of so many bytes, from its start to its end."""

_LEFT_OUT = "__pycache__"


@dataclass(frozen=True)
class Item:
    """One thing that a stage was made from."""

    what: str
    """Stage, path or hub name, as the recipe gives it."""
    digest: str
    """Of its content; of a hub name the commit; empty: not known, which is no change."""
    seen: str = ""
    """Of the names, sizes and times of its files: while these are the same, none is read again."""


@dataclass(frozen=True)
class Inputs:
    items: Mapping[str, Item]
    """Key of the recipe (`policy`, `data.path`, …), `recipe` or `code` → what stood there."""
    event: int = 0
    """Number of the newest event of the journal when this was written."""
    schema: int = 1


def read(stage: StagePaths) -> Inputs | None:
    """What the stage began with; None: it has not begun, or an older launcher began it."""
    return files.read_json(stage.inputs, Inputs)


def write(stage: StagePaths, inputs: Inputs) -> None:
    files.private_folder(stage.root)
    files.write_json(stage.inputs, inputs)


def digests(stage: StagePaths) -> dict[str, str]:
    """Key → digest, of what is known, as COMPLETE.json keeps it."""
    found = read(stage)
    items = found.items.items() if found is not None else ()
    return {key: item.digest for key, item in items if item.digest}


def gather(
    run: RunPaths,
    recipe: str,
    sources: Mapping[str, tuple[str, str]],
    commit: Callable[[str, str], str | None],
    before: Inputs | None = None,
) -> Inputs:
    """What the stage would be made from now.

    `recipe` is the digest of its recipe; `sources` as `launcher.plan.inputs.sources` gives them;
    `commit` tells the revision of a hub's model or data set, given its kind and name. Files that
    look as they did `before` are not read again.
    """
    old = before.items if before is not None else {}
    items = {"recipe": Item("recipe", recipe), "code": fingerprint(run.code, old.get("code"))}
    for key, (kind, name) in sources.items():
        if kind == "stage":
            path = run.stage(name).complete
            items[key] = Item(f"stage {name}", complete.digest(path) if path.is_file() else "")
        elif Path(name).is_absolute():
            items[key] = fingerprint(Path(name), old.get(key))
        else:
            items[key] = Item(name, commit(kind, name) or "")
    return Inputs(items)


def moved(before: Inputs, now: Inputs) -> tuple[str, ...]:
    """What is not as it was, in words. Pure."""
    return tuple(_moves(before, now))


def _moves(before: Inputs, now: Inputs) -> Iterator[str]:
    for key, item in now.items.items():
        old = before.items.get(key)
        if old is None or "" in (old.digest, item.digest) or old.digest == item.digest:
            continue
        if key == "recipe":
            yield "what the recipe says of the stage changed"
        elif key == "code":
            yield "the run's copy of the code changed"
        elif item.what.startswith("stage ") and old.what == item.what:
            yield f"{key}: {item.what} was run again"
        elif old.what and old.what != item.what:
            yield f"{key}: it was {old.what}, and is {item.what}"
        else:
            yield f"{key}: {item.what} changed"


def merged(before: Inputs | None, now: Inputs) -> Inputs:
    """`now`, with what `before` knew where it knows nothing. Pure."""
    old = before.items if before is not None else {}
    known = {
        key: old[key] if not item.digest and key in old else item for key, item in now.items.items()
    }
    return replace(now, items=known)


def accepted(events: Iterable[journal.Event], stage: str, since: int) -> bool:
    """Whether `launcher resume --accept-change` was given after the event numbered `since`, for
    this stage or for the whole run. Pure."""
    return any(
        event.kind == "accepted" and event.stage in (None, stage) and event.number > since
        for event in events
    )


def begins_anew(stage: StagePaths, receipts: Iterable[attempts.Attempt]) -> bool:
    """Whether nothing is there to go on from, and the last attempt asked for a change: it failed by
    an error in the recipe or its data."""
    ended = [each for each in receipts if each.outcome is not None and each.failed != "changed"]
    if not ended or any(stage.checkpoints.glob("checkpoint-*")):
        return False
    failure = ended[-1].failure
    return failure is not None and failure.kind == "user"


def fingerprint(path: Path, before: Item | None = None) -> Item:
    """A file, or a folder with all its files. Raises OSError where one cannot be read."""
    found = sorted(_files(path))
    if not found:
        return Item(str(path), "")
    seen = hashlib.sha256()
    for name, file in found:
        status = file.stat()
        seen.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode()
        )
    looks = seen.hexdigest()
    if before is not None and before.digest and before.seen == looks:
        return before
    sha = hashlib.sha256()
    for name, file in found:
        sha.update(f"{name}\0{_content(file)}\n".encode())
    return Item(str(path), sha.hexdigest(), looks)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """(name below `path`, file) of every regular file; links of a hub's cache lead to its blobs."""
    if path.is_file():
        yield "", path
    for folder, inside, names in os.walk(path, onerror=_unread):
        inside[:] = [name for name in inside if name != _LEFT_OUT]
        for name in names:
            file = Path(folder) / name
            if file.is_file():
                yield str(file.relative_to(path)), file


def _unread(error: OSError) -> None:
    """A folder that is gone, or not for this user, has no files; of one that the disk does not give
    now nobody knows."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        raise error


def _content(file: Path) -> str:
    size = file.stat().st_size
    if size <= WHOLE:
        return complete.digest(file)
    sha = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        for index in range(BLOCKS):
            handle.seek((size - BLOCK) * index // (BLOCKS - 1))
            sha.update(handle.read(BLOCK))
    return sha.hexdigest()
