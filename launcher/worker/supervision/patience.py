"""A supervisor's patience with the disks of its job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from launcher.records import commits
from launcher.worker import disk
from launcher.worker.supervision.job import Job

T = TypeVar("T")


def patient(job: Job, act: Callable[[], T], *, tidy: bool = False) -> T:
    """What `act` gives, as `disk.waited_out` waits for it while this start of the job lasts.

    `tidy`: no trainer of the stage writes now, so that room may be made of what dead ones left half
    done (one of an earlier start that lives on meets the same full disk). Raises OSError.
    """
    make_room = partial(commits.tidy, job.stage.checkpoints) if tidy else None
    return disk.waited_out(act, lambda: job.ending, make_room)
