"""What reaches a supervisor from outside."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from types import FrameType

from launcher.worker import deadlines


@dataclass
class Signals:
    """What reached this supervisor so far."""

    stop: bool = False
    """A checkpoint, please, and an end."""
    now: bool = False
    """An end: what is not saved is lost."""
    warned_at: float | None = None
    """When the first USR2 came (monotonic), which warns of the end; None: none has."""
    termed_at: float | None = None
    """The same of TERM, soon after which is the end."""

    def install(self) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        for number in numbers:
            signal.signal(number, self._note)
        # What came before there was a handler comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def overdue(self, signal_lead_s: float) -> bool:
        """Whether a trainer that was told to stop has had its time."""
        now = time.monotonic()
        return any(
            at is not None and now - at > deadlines.to_stop(signal_lead_s, warned=warned)
            for at, warned in ((self.warned_at, True), (self.termed_at, False))
        )

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGUSR2:
            self.warned_at = self.warned_at or now
        else:
            self.termed_at = self.termed_at or now
        self.stop = True
        # What Submitit sends to its tasks on this machine a second before it kills them.
        self.now = self.now or number == signal.SIGINT
