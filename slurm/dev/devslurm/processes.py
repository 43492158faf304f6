"""Which processes are the cluster's own, and how they end.

A daemon is known by its pid together with its start time, so that a pid given to another process
since is left alone. A job's processes are known by their mount namespace: what a node's slurmd
starts sees the cluster's own file as /etc/hosts, and nothing else does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

_PROC = Path("/proc")


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`; None when it is gone or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class Process:
    """One daemon, as it was started."""

    name: str
    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started

    def send(self, signum: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


def record(folder: Path, name: str, pid: int) -> None:
    """Note daemon `name` under `folder`, if it still runs."""
    started = start_time(pid)
    if started is not None:
        process = Process(name, pid, started, boot_id())
        (folder / f"{name}.json").write_text(json.dumps(asdict(process)))


def recorded(folder: Path) -> dict[str, Process]:
    """The daemons noted under `folder` that still run, by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError):
            process = Process(**json.loads(path.read_text()))
            if process.alive:
                found[process.name] = process
    return found


def marked(mark: str) -> list[int]:
    """Every live process whose /etc/hosts is the file `hosts.MARK`."""
    ending = f"/hosts.{mark}"
    return [
        int(entry.name)
        for entry in _PROC.iterdir()
        if entry.name.isdigit() and _hosts_file(entry).endswith(ending)
    ]


def _hosts_file(process: Path) -> str:
    """The file that is mounted on /etc/hosts for a process, within its file system, or ''."""
    try:
        mounts = (process / "mountinfo").read_text(errors="replace")
    except OSError:
        # Gone, or a zombie: neither has a namespace.
        return ""
    for line in reversed(mounts.splitlines()):
        fields = line.split()
        if fields[4] == "/etc/hosts":
            return fields[3]
    return ""


def stop(processes: Iterable[Process], patience: float) -> None:
    """End `processes` with SIGTERM, and those alive after `patience` seconds with SIGKILL."""
    left = [process for process in processes if process.alive]
    for process in left:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if process.alive]
    for process in left:
        process.send(signal.SIGKILL)


def sweep(mark: str, patience: float = 5.0) -> None:
    """Kill every process in the cluster's namespaces, those they start meanwhile too."""
    deadline = time.monotonic() + patience
    while pids := marked(mark):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} do not end")
        time.sleep(0.02)
