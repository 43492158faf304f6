"""No process outlives its supervisor: nobody would stop it, or know what it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# The supervisor's pid, by which its child knows that it was orphaned before it could ask.
PARENT = "LAUNCHER_SUPERVISOR"

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_supervisor() -> None:
    """Let the kernel kill this process when the one that started it is gone (Linux)."""
    if PARENT not in os.environ:
        return
    bind_to_parent()
    if os.getppid() != int(os.environ[PARENT]):
        os.kill(os.getpid(), signal.SIGKILL)


def bind_to_parent() -> None:
    """In a child before it becomes its program: it is killed when its parent is gone (Linux)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
