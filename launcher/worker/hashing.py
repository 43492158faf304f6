"""Hashes of a checkpoint's files, the work divided over the ranks."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launcher.records import checkpoints
from launcher.records.checkpoints import File
from launcher.worker.distributed import gathered, place, told
from launcher.worker.outcome import Ends

_CHUNK = 1 << 22
_THREADS = 4
"""Of a rank. One hashes 1 to 2 GB/s, and files are few."""
_OF_RANK = re.compile(r"(?:rng_state|rollout|zero_pp_rank)_(\d+)")


def shares(sizes: Mapping[str, int], world: int, per_node: int) -> dict[str, int]:
    """File → the rank that hashes it, one of the node where it was written (and lies in memory).

    Files that bear a rank are that rank's. All others are rank 0's, which shares them with the
    `per_node` ranks of its node, the largest first.
    """
    found: dict[str, int] = {}
    load = dict.fromkeys(range(min(per_node, world)), 0)
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        bears = _OF_RANK.search(name)
        rank = int(bears[1]) if bears else min(load, key=lambda each: load[each])
        if not bears:
            load[rank] += sizes[name]
        found[name] = rank
    return found


def hashed(staged: Path) -> tuple[File, ...]:
    """Every file that the ranks wrote below `staged`, on disk and hashed. A collective."""
    rank, world = place()
    # A rank knows its own files best: another node may not see them at once.
    own = {name: (staged / name).stat().st_size for name in checkpoints.contents(staged)}
    sizes: dict[str, int] = {}
    for seen in gathered(own):
        sizes.update(seen)
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    mine = [name for name, whose in shares(sizes, world, per_node).items() if whose == rank]
    found = [file for part in gathered(_all_settled(staged, mine)) for file in part]
    return tuple(sorted(found, key=lambda file: file.path))


@dataclass(frozen=True)
class _Seen:
    """What a rank saw of its part of a checkpoint."""

    damage: str | None = None
    unread: str | None = None
    """Why the part could not be read, which says nothing of it."""


def examined(path: Path) -> str | None:
    """Why the checkpoint in `path` is not whole, the same on every rank; None: it is. A collective.

    Raises Ends (`disk`), on every rank, where the disk did not let one of them look.
    """
    rank, world = place()
    seen, commit = _Seen(), None
    if rank == 0:

        def read() -> str | None:
            nonlocal commit
            commit = checkpoints.read(path)
            return checkpoints.out_of_place(path, commit)

        seen = _seen(read)
    seen, commit = told((seen, commit))
    why = _verdict(path, [seen])
    if why is not None:
        return why
    whose = shares({file.path: file.size for file in commit.files}, world, world)
    mine = [file for file in commit.files if whose[file.path] == rank]
    with ThreadPoolExecutor(_THREADS) as pool:
        own = list(pool.map(lambda file: _seen(lambda: checkpoints.damaged(path, file)), mine))
    return _verdict(path, [seen for part in gathered(own) for seen in part])


def _seen(look: Callable[[], str | None]) -> _Seen:
    """What `look` says is wrong, or what it met instead."""
    try:
        return _Seen(damage=look())
    except (checkpoints.NotCommitted, FileNotFoundError, NotADirectoryError) as error:
        return _Seen(damage=str(error))
    except OSError as error:
        return _Seen(unread=str(error))


def _verdict(path: Path, seen: Collection[_Seen]) -> str | None:
    for each in seen:
        if each.unread is not None:
            raise Ends("disk", f"{path.name} could not be read: {each.unread}")
    return next((each.damage for each in seen if each.damage is not None), None)


def _all_settled(folder: Path, names: Collection[str]) -> list[File]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda name: _settled(folder, name), names))


def _settled(folder: Path, name: str) -> File:
    """The file as it is on disk when this returns."""
    sha, size = hashlib.sha256(), 0
    with (folder / name).open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
        os.fsync(handle.fileno())
    return File(name, size, sha.hexdigest())
