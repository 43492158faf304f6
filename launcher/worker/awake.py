"""A clock for loops that wait, which stands still while their process does.

A job that Slurm suspends has all its processes stopped, the supervisors too: nobody was silent in
that time. Under gang scheduling it comes again and again.
"""

from __future__ import annotations

import time

TURN_S = 1.0
"""What one turn of a loop counts as at most. All of them ask several times a second."""


class Awake:
    """Seconds that a loop has waited since this was made, or set back. It must be asked in every
    turn."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._seconds = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._asked, TURN_S)
        self._asked = now
        return self._seconds

    def set_back(self) -> None:
        """Count from now on."""
        self._asked = time.monotonic()
        self._seconds = 0.0
