"""A trainer never outlives its supervisor: nobody would stop it, or know what it writes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# The supervisor's pid, by which a trainer knows that it was orphaned before it could ask.
PARENT = "LAUNCHER_SUPERVISOR"

_PR_SET_PDEATHSIG = 1


def die_with_supervisor() -> None:
    """Let the kernel kill this process when the one that started it is gone (Linux)."""
    if sys.platform != "linux" or PARENT not in os.environ:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):
        os.kill(os.getpid(), signal.SIGKILL)
