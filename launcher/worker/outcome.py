"""How a trainer process tells its supervisor what became of it, in an exit code."""

from __future__ import annotations

from launcher.errors import LauncherError
from launcher.records.failures import FailureClass

STOPPED = 85
"""A signal asked for a stop; a checkpoint is written, the stage goes on in another attempt."""
USER_ERROR = 86
"""The recipe or its data is wrong: the same attempt would fail the same way."""
SUPERSEDED = 87
"""Another submission of this stage is the current one; nothing was done."""
FAILED = 1


class Ends(LauncherError):
    """What ends an attempt, with the class of the failure."""

    def __init__(self, failed: FailureClass, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failed = failed
