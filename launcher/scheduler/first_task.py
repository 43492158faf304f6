"""Whether the first task of a job of this machine lives, which decides for the others.

Under Slurm srun ends the tasks of a job whose first one died; here nobody does.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

GONE_S = 10.0
"""How long the others go on after its end: they hear what it said last, and end by themselves."""
_FIRST = b"SUBMITIT_LOCAL_GLOBALID=0"


class FirstTask:
    """The first task of the job, as another one sees it."""

    def __init__(self) -> None:
        self._since: float | None = None
        """When its end was seen."""
        self._known = True
        self._handle: int | None = None
        try:
            self._handle = _handle()
        except (AttributeError, OSError):
            # A kernel that does not tell.
            self._known = False

    def gone(self) -> bool:
        """Whether it ended `GONE_S` ago or longer. It must be asked time and again."""
        if self._since is None and self._known and self._ended():
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() - self._since > GONE_S

    def _ended(self) -> bool:
        if self._handle is None:
            return True
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        return bool(ended.poll(0))


def _handle() -> int | None:
    """What tells the end of the task of rank 0; None: it has ended.

    Raises OSError and AttributeError where the system has no such thing (Linux has).
    """
    parent = os.getppid()
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            handle = os.pidfd_open(int(pid))
        except ProcessLookupError:
            continue
        if _FIRST in _environment(pid):
            return handle
        os.close(handle)
    return None


def _environment(pid: str) -> list[bytes]:
    """The variables that a process was started with; none, where it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
