"""What is remembered of a cluster in its state folder, and who may change it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from devslurm.layout import NODES, Layout

_RECORD = "cluster.json"
# What a path needs after the base: spool/NODE/NODE_JOB.STEP, the longest socket.
_SOCKET_TAIL = len("/spool/") + 40
_SOCKET_LIMIT = 107
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")


@dataclass(frozen=True)
class Running:
    """A cluster that was started, or whose start was tried."""

    mark: str
    """Sixteen hex digits that no other cluster has."""
    base: str
    first_port: int
    accounting: bool

    @property
    def layout(self) -> Layout:
        return Layout(Path(self.base))

    @property
    def daemons(self) -> tuple[str, ...]:
        accounting = ("mariadbd", "slurmdbd") if self.accounting else ()
        return ("munged", *accounting, "slurmctld", *NODES)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time for one state folder."""
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(state: Path, running: Running) -> None:
    partial = state / f"{_RECORD}.partial"
    partial.write_text(json.dumps(asdict(running)))
    partial.replace(state / _RECORD)


def read(state: Path) -> Running | None:
    """The cluster of `state`; None: none was started, or it has been ended."""
    path = state / _RECORD
    return Running(**json.loads(path.read_text())) if path.exists() else None


def forget(state: Path, running: Running) -> None:
    """Note that the cluster has ended, and take away the link that it had."""
    base = Path(running.base)
    if base != state and base.is_symlink():
        base.unlink()
        base.parent.rmdir()
    (state / _RECORD).unlink(missing_ok=True)


def base_of(state: Path) -> Path:
    """`state`, or a new short link to it where its path is too long or odd for Slurm."""
    longest = len(os.fsencode(state)) + _SOCKET_TAIL
    if longest <= _SOCKET_LIMIT and _PLAIN_PATH.fullmatch(str(state)):
        return state
    link = Path(tempfile.mkdtemp(prefix="devslurm-", dir="/tmp")) / "s"
    link.symlink_to(state)
    return link
