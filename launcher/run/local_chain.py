"""The chain on this machine, without Slurm: a process of its own that outlives the terminal.

python -m launcher.run.local_chain RUN
"""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import sys
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from launcher.plan.types import Plan, StagePlan
from launcher.records import attempts, complete, failures, files, journal, progress
from launcher.records.paths import RunPaths, StagePaths
from launcher.run.folder import load_plan
from launcher.run.request import job_request

if TYPE_CHECKING:
    from launcher.scheduler.local import LocalJob

POLL_S = 0.2
LOCK_S = 2.0
# How long a training that was told to end may take for its step and checkpoint: what a Slurm of
# default settings gives a job that is cancelled.
CHECKPOINT_S = 30


@dataclass(frozen=True)
class Holder:
    """The process that runs a chain."""

    host: str
    pid: int


def holder(run: RunPaths) -> Holder | None:
    """The process that runs the chain now, here or on another host, or None."""
    try:
        handle = run.local_chain.open("r+")
    except FileNotFoundError:
        return None
    with handle:
        if _lock(handle):
            return None
        host, _, pid = handle.read().strip().rpartition(" ")
        return Holder(host, int(pid)) if pid.isdigit() else None


def _lock(handle: IO[str] | int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main(root: str) -> int:
    """Exit code: 0 complete or already running elsewhere, 1 a stage failed, 130 told to end."""
    os.umask(0o077)
    told = _Told()
    signal.signal(signal.SIGTERM, told.note)
    run = RunPaths(Path(root))
    # Never closed: whoever gets the lock knows that nothing of this process is left.
    lock = os.open(run.local_chain, os.O_RDWR | os.O_CREAT, files.PRIVATE_FILE)
    # A command that looks whether a chain runs holds the lock for an instant.
    deadline = time.monotonic() + LOCK_S
    while not _lock(lock):
        if time.monotonic() > deadline:
            return 0
        time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.write(lock, f"{platform.node()} {os.getpid()}".encode())
    return _chain(run, load_plan(run), told)


class _Told:
    """Whether this process was told to end; the loops look."""

    def __init__(self) -> None:
        self.end = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.end = True


def _chain(run: RunPaths, plan: Plan, told: _Told) -> int:
    failed: set[str] = set()
    for planned in plan.stages:
        if planned.stage.use is not None or complete.read(run.stage(planned.name)) is not None:
            continue
        if failed & set(planned.stage.needs) or not _run(run, plan, planned, told):
            failed.add(planned.name)
        if told.end:
            return 130
    return 1 if failed else 0


def _run(run: RunPaths, plan: Plan, planned: StagePlan, told: _Told) -> bool:
    """Whether the stage is complete, after as many jobs as time limits and failures make of it."""
    # Submitit takes a while to load, and `holder` is asked by every command.
    from launcher.scheduler.local import LocalJob

    token = uuid.uuid4().hex
    stage = run.stage(planned.name)
    files.private_folder(stage.logs)
    journal.append(run.journal, journal.Event("intent", time.time(), planned.name, token))
    while not told.end:
        rung = failures.first_rung(attempts.read(stage.attempts))
        request = job_request(run, plan, planned.name, token)
        job = LocalJob(replace(request, allocation=planned.at(rung).allocation))
        journal.append(
            run.journal, journal.Event("submitted", time.time(), planned.name, token, job.job_id)
        )
        _watch(job, stage, token, told)
        if complete.read(stage) is not None:
            return True
        if not _goes_on(stage, job.job_id, told):
            return False
    return False


def _watch(job: LocalJob, stage: StagePaths, token: str, told: _Told) -> None:
    """Return when the job is over."""
    while job.poll() is None:
        time.sleep(POLL_S)
        if told.end:
            now = progress.read(stage)
            trains = now is not None and now.token == token and now.phase == "train"
            # Before and after the steps there is nothing to save that is not on disk.
            job.end(grace=CHECKPOINT_S if trains else 0)


def _goes_on(stage: StagePaths, job_id: str, told: _Told) -> bool:
    """Whether another job shall do the rest of the stage: its supervisors say so in the last
    receipt, or died before they could, which the next ones count."""
    receipts = attempts.read(stage.attempts)
    last = receipts[-1] if receipts else None
    if last is None or last.job_id != job_id:
        return False
    if last.outcome is None:
        return True
    if last.answer is None or last.answer == "end":
        return False
    if last.failed is not None:
        until = time.monotonic() + failures.RESPONSES[last.failed].pause_s
        while time.monotonic() < until and not told.end:
            time.sleep(POLL_S)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
