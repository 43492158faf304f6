"""The errors that a user may see, and the exit code of each.

LauncherError            1  operational
├── UsageError           2  the command line or the recipe, profile or plan given is wrong
├── DoesNotFit           3  no allocation of the cluster holds the stage
├── SchedulerUnavailable 4  Slurm does not answer
└── StageFailed          5  a stage of the chain failed
"""

from __future__ import annotations

import errno
from collections.abc import Mapping


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


DISK: Mapping[int, str] = {
    errno.ENOSPC: "make room on that disk; the same command then goes on",
    errno.EDQUOT: "your quota there is used up: remove what is not needed, then the same command"
    " goes on",
    errno.EROFS: "the file system takes no writes; choose another folder with --runs, or wait",
    errno.ESTALE: "the file server lost that folder for a moment; the same command goes on",
}
"""What to do about an OSError of a disk, by its number."""
