"""A request to stop: a signal sets a flag, and the ranks agree on it at a step's end.

Nothing is saved inside a signal handler, and no rank stops alone: one that did would leave the
others waiting in their next collective for ever.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Stop:
    """Whether this rank was told to stop."""

    def __init__(self) -> None:
        self._told = False

    def listen(self) -> None:
        """Hear the signals from now on, and those that came while they were blocked."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True

    @property
    def told(self) -> bool:
        """Whether this rank itself was told."""
        return self._told

    def agreed(self, device: Any) -> bool:
        """Whether any rank was told. A collective: every rank must call it at the same step."""
        import torch
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return self._told
        flag = torch.tensor([int(self._told)], device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        self._told = bool(flag.item())
        return self._told
