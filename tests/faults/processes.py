"""The processes of a run, as the kernel knows them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.fault import Missed

TRAINER = "launcher.worker.train"
SUPERVISOR = "launcher.scheduler.entry"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    pid: int
    started: int
    """Clock ticks from boot."""
    stage: str
    rank: int

    @property
    def alive(self) -> bool:
        """Whether it runs; one that waits for its parent to take note of its end does not."""
        return started(self.pid) == self.started


def started(pid: int) -> int | None:
    """When a process started, in ticks from boot; None: it is gone, or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def of_run(root: Path, module: str) -> list[Process]:
    """The live processes of `module` that work for the run, by rank."""
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if module not in words or str(root) not in words:
            continue
        pid = int(entry.name)
        begun, rank = started(pid), _rank(entry)
        if begun is not None and rank is not None:
            found.append(Process(pid, begun, words[words.index(str(root)) + 1], rank))
    return sorted(found, key=lambda process: process.rank)


def _rank(entry: Path) -> int | None:
    with contextlib.suppress(OSError):
        for word in (entry / "environ").read_bytes().split(b"\0"):
            name, _, value = word.partition(b"=")
            # A supervisor learns its rank from Slurm, and tells its trainer.
            if name in (b"RANK", b"SLURM_PROCID"):
                return int(value)
    return None


def kill(process: Process, patience_s: float = 10) -> None:
    """End it at once. Raises Missed where it has ended by itself."""
    if not process.alive:
        raise Missed(f"process {process.pid} had ended")
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    while process.alive:
        if time.monotonic() > deadline:
            raise Missed(f"process {process.pid} does not end")
        time.sleep(0.005)


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal. Raises Missed where it has ended."""
    if not process.alive:
        raise Missed(f"process {process.pid} had ended")
    os.kill(process.pid, number)


def waits(process: Process, number: signal.Signals) -> bool:
    """Whether the signal was sent to it and it has not taken it yet, as while it is halted."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(process.pid) / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("SigPnd", "ShdPnd") and int(value, 16) >> (number - 1) & 1:
                return True
    return False


def of_node(anchor: int) -> list[int]:
    """The pids on the same node of a development cluster as process `anchor`: those that see the
    same host name."""
    try:
        own = (_PROC / str(anchor) / "ns" / "uts").readlink()
    except OSError:
        return []
    if own == Path("/proc/self/ns/uts").readlink():
        return []
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns" / "uts").readlink() == own:
                    found.append(int(entry.name))
    return found
