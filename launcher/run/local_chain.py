"""The chain on this machine, without Slurm: a process of its own that outlives the terminal.

python -m launcher.run.local_chain RUN
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import IO

from launcher.plan.types import Plan, StagePlan
from launcher.records import attempts, complete, files, journal
from launcher.records.paths import RunPaths
from launcher.run.folder import load_plan
from launcher.run.request import job_request

POLL_S = 0.2
LOCK_S = 2.0
# Ranks of a world that lost one wait in a collective for ever: how long they may go on.
LOST_RANK_S = 20


class _Cancelled(Exception):
    pass


def holder(run: RunPaths) -> int | None:
    """The pid of the process that runs the chain now, or None."""
    try:
        handle = run.local_chain.open("r+")
    except FileNotFoundError:
        return None
    with handle:
        if _lock(handle):
            return None
        return int(handle.read().strip() or 0) or None


def _lock(handle: IO[str]) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main(root: str) -> int:
    """Exit code: 0 complete or already running elsewhere, 1 a stage failed, 130 cancelled."""
    os.umask(0o077)
    run = RunPaths(Path(root))
    with run.local_chain.open("a+") as handle:
        # A command that looks whether a chain runs holds the lock for an instant.
        deadline = time.monotonic() + LOCK_S
        while not _lock(handle):
            if time.monotonic() > deadline:
                return 0
            time.sleep(0.05)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        signal.signal(signal.SIGTERM, _cancel)
        plan = load_plan(run)
        try:
            return _chain(run, plan)
        except _Cancelled:
            return 130


def _cancel(_number: int, _frame: FrameType | None) -> None:
    raise _Cancelled


def _chain(run: RunPaths, plan: Plan) -> int:
    failed: set[str] = set()
    for planned in plan.stages:
        if planned.stage.use is not None or complete.read(run.stage(planned.name)) is not None:
            continue
        if failed & set(planned.stage.needs) or not _run(run, plan, planned):
            failed.add(planned.name)
    return 1 if failed else 0


def _run(run: RunPaths, plan: Plan, planned: StagePlan) -> bool:
    """Whether the stage is complete after its job ended."""
    # Submitit takes a while to load, and `holder` is asked by every command.
    from launcher.scheduler.local import LocalJob

    token = uuid.uuid4().hex
    stage = run.stage(planned.name)
    files.private_folder(stage.logs)
    journal.append(run.journal, journal.Event("intent", time.time(), planned.name, token))
    job = LocalJob(job_request(run, plan, planned.name, token))
    journal.append(
        run.journal, journal.Event("submitted", time.time(), planned.name, token, job.job_id)
    )
    lost_since: float | None = None
    try:
        while job.poll() is None:
            time.sleep(POLL_S)
            if lost_since is None and attempts.failures(stage.attempts, job.job_id):
                lost_since = time.monotonic()
            if lost_since is not None and time.monotonic() - lost_since > LOST_RANK_S:
                job.end()
    except _Cancelled:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        journal.append(
            run.journal, journal.Event("cancelled", time.time(), planned.name, token, job.job_id)
        )
        job.end()
        raise
    return complete.read(stage) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
