"""A request to stop: a signal sets a flag, and the ranks agree on it at a step's end.

Nothing is saved inside a signal handler, and amid steps no rank stops alone: one that did would
leave the others waiting in their next collective. Where there is nothing to save, before the first
step and while a finished training is evaluated, a rank leaves at once; the supervisors see to the
others.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Leave(BaseException):
    """Raised where this process is, by a signal to stop while there is nothing to save."""


class Stop:
    """Whether this rank was told to stop."""

    def __init__(self) -> None:
        self._told = False
        self._leaves = False
        self._raised = False
        self.spoilt = False
        """Whether this rank's step came to a loss that is no number."""

    def listen(self) -> None:
        """Hear the signals from now on, and those that came while they were blocked."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True
        if self._leaves and not self._raised:
            # Once: what swallows it meets the flag later.
            self._raised = True
            raise Leave

    def leave_at_once(self) -> None:
        """From now on there is nothing to save. Raises Leave where this rank was told already."""
        self._leaves, self._raised = True, False
        if self._told:
            raise Leave

    def hold(self) -> None:
        """From now on a signal sets the flag, and no more. Raises Leave where one came since there
        is nothing to save."""
        left, self._leaves = self._leaves, False
        if left and self._told:
            raise Leave

    @property
    def told(self) -> bool:
        """Whether this rank itself was told."""
        return self._told

    def agreed(self, device: Any) -> bool:
        """Whether any rank was told; `spoilt` then says whether any rank's step is. A collective:
        every rank must call it at the same step."""
        import torch
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return self._told
        flags = torch.tensor([int(self._told), int(self.spoilt)], device=device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        self._told, self.spoilt = map(bool, flags.tolist())
        return self._told
