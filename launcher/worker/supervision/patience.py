"""Patience with the disk of a run: what a supervisor cannot write down now, it may in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from launcher.records import commits
from launcher.worker import classify
from launcher.worker.supervision.job import Job

T = TypeVar("T")

AGAIN_S = 5.0
PATIENCE_S = 300.0
"""How long a disk may stay full, or leave a question without an answer."""


def patient(job: Job, act: Callable[[], T], *, tidy: bool = False) -> T:
    """What `act` gives, which is called again while the disk is full or does not answer.

    `tidy`: no trainer of the stage writes now, so that room may be made of what dead ones left half
    done (one of an earlier start that lives on meets the same full disk). Raises the OSError once
    there was no room for `PATIENCE_S`, or this start of the job will not last; any other error at
    once.
    """
    began = time.monotonic()
    told = False
    while True:
        try:
            return act()
        except OSError as error:
            if tidy and classify.is_full(error):
                tidy = False
                with suppress(OSError):
                    commits.tidy(job.stage.checkpoints)
                continue
            over = time.monotonic() - began > PATIENCE_S
            if over or job.ending or not classify.of_the_disk(error):
                raise
            if not told:
                print(f"waits for the disk of the run: {error}", flush=True)
            told = True
        job.pause(AGAIN_S)
