"""How a trainer process tells its supervisor what became of it, in an exit code."""

from __future__ import annotations

STOPPED = 85
"""A signal asked for a stop; a checkpoint is written, the stage goes on in another attempt."""
USER_ERROR = 86
"""The recipe or its data is wrong: the same attempt would fail the same way."""
SUPERSEDED = 87
"""Another submission of this stage is the current one; nothing was done."""
FAILED = 1
