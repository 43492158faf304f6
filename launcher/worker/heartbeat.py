"""Signs of life from a trainer to its supervisor: a byte in a pipe that the trainer inherits.

The byte says which pace to expect until the next one: of steps, or of what takes as long as it
takes, such as loading. A trainer that nobody supervises gives none.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Literal

from launcher.records.measurement import STEP
from launcher.worker.awake import Awake

PIPE = "LAUNCHER_HEARTBEAT"
"""The variable that names the pipe's descriptor."""

Pace = Literal["slow", "steps"]
_BYTES: dict[Pace, bytes] = {"slow": b"l", "steps": b"s"}
BATCH = "evaluation batch"
# Parts of a step, and what is done batch by batch. All else has no pace; nor has the first step,
# for which kernels may be compiled.
_PACED = {"train", "data", "rollout", "score", "update", "optimizer step", STEP, BATCH}
_stepped = False


def beat(phase: str) -> None:
    """Say that this process lives, and what it does now."""
    number = os.environ.get(PIPE)
    if number is None:
        return
    global _stepped
    _stepped = _stepped or phase == STEP
    pace: Pace = "steps" if _stepped and phase in _PACED else "slow"
    # A full pipe holds signs enough, a broken one is nobody's.
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(int(number), _BYTES[pace])


class Listener:
    """The supervisor's end."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        for end in (self._read, self.write):
            os.set_blocking(end, False)
        self.pace: Pace = "slow"
        self._silent = Awake()

    def started(self) -> None:
        """The trainer has inherited its end."""
        os.close(self.write)

    def silence(self) -> float:
        """Seconds since the last sign of life, or since the start, that this process saw pass. It
        must be asked often."""
        while True:
            try:
                said = os.read(self._read, 65536)
            except BlockingIOError:
                break
            if not said:
                break
            self._silent.set_back()
            self.pace = "steps" if said.endswith(_BYTES["steps"]) else "slow"
        return self._silent()

    def close(self) -> None:
        os.close(self._read)
