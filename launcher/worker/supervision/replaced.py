"""Whether a start of a job has lost its stage to a later one."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from launcher.records import attempts

REPLACED_S = 1.0
"""How often it is looked whether a later start has taken over; a trainer loads for longer."""


class Replaced:
    """Whether a later start of the stage has taken over: Slurm gives a node up whose slurmd died,
    and starts the job elsewhere, while the processes of this start live on."""

    def __init__(self, receipts: Path, begun: attempts.Attempt) -> None:
        self._receipts, self._begun = receipts, begun
        self._asked = time.monotonic()
        self._found = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._found and now - self._asked > REPLACED_S:
            self._asked = now
            # A disk that does not answer now is asked again.
            with suppress(OSError):
                return self.look()
        return self._found

    def look(self) -> bool:
        """The same as the disk says now. Raises OSError."""
        self._found = self._found or any(map(self._takes_over, attempts.read(self._receipts)))
        return self._found

    def _takes_over(self, receipt: attempts.Attempt) -> bool:
        # A later start ends the receipts that it finds open.
        if receipt.number == self._begun.number:
            return receipt.ended is not None
        return receipt.number > self._begun.number and receipt.ended is None
