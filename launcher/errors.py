"""The errors that a user may see, and the exit code of each.

LauncherError            1  operational
├── UsageError           2  the command line or the recipe, profile or plan given is wrong
├── DoesNotFit           3  no allocation of the cluster holds the stage
├── SchedulerUnavailable 4  Slurm does not answer
└── StageFailed          5  a stage of the chain failed
"""

from __future__ import annotations


class LauncherError(Exception):
    """One sentence, its place where there is one, and the way out."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LauncherError):
    exit_code = 2


class DoesNotFit(LauncherError):
    exit_code = 3


class SchedulerUnavailable(LauncherError):
    exit_code = 4


class StageFailed(LauncherError):
    exit_code = 5
