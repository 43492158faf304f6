"""What reaches a supervisor from outside."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import FrameType


@dataclass
class Signals:
    """What reached this supervisor so far."""

    stop: bool = False
    """A checkpoint, please, and an end."""
    now: bool = False
    """An end: what is not saved is lost."""

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.stop = True
        # What Submitit sends to its tasks on this machine a second before it kills them.
        self.now = self.now or number == signal.SIGINT
