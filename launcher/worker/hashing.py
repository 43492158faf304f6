"""Hashes of a checkpoint's files, the work divided over the ranks."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from launcher.records import checkpoints
from launcher.records.checkpoints import File
from launcher.worker.distributed import gathered, place, told

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


def examined(path: Path) -> str | None:
    """Why the checkpoint in `path` is not whole, the same on every rank. A collective."""
    rank, world = place()
    why, commit = None, None
    if rank == 0:
        try:
            commit = checkpoints.read(path)
            why = checkpoints.out_of_place(path, commit)
        except (checkpoints.NotCommitted, OSError) as error:
            why = str(error)
    why, commit = told((why, commit))
    if why is not None:
        return str(why)
    whose = shares({file.path: file.size for file in commit.files}, world, world)
    mine = [file for file in commit.files if whose[file.path] == rank]
    found = [why for why in gathered(_first_damage(path, mine)) if why is not None]
    return found[0] if found else None


def _first_damage(path: Path, written: Collection[File]) -> str | None:
    def look(file: File) -> str | None:
        try:
            return checkpoints.damaged(path, [file])
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        return next((why for why in pool.map(look, written) if why is not None), None)


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
