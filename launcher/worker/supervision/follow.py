"""The supervisors beside rank 0's: those of the other ranks, and of the server's tasks."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher.errors import LauncherError
from launcher.records import attempts, rounds, serving
from launcher.worker import child
from launcher.worker.awake import Awake
from launcher.worker.disk import PATIENCE_S
from launcher.worker.outcome import FAILED
from launcher.worker.supervision import rank, refusal
from launcher.worker.supervision.job import Ended, Job, environment
from launcher.worker.supervision.patience import patient
from launcher.worker.supervision.refusal import Refusal
from launcher.worker.vllm import serve

Word = TypeVar("Word", rounds.Opening, rounds.Closing)

POLL_S = child.POLL_S
OPENING_S = 3600.0
"""How long the supervisor of rank 0 may take to open a round: nodes of a job do not start together,
and before the first it hashes what the stage is made from, which may be many files of data on a
slow disk. Where it dies, srun ends the others without their asking, and on a machine without Slurm
the job is deserted."""
CLOSING_S = 60.0 + PATIENCE_S
"""How long it may take to close one after this rank's trainer has ended: it may have to wait for
the disk."""


def follow(job: Job, refused: Refusal | None = None) -> Ended:
    """Do as the supervisor of rank 0 says, until it says that this is over or is gone.

    `refused`: why this rank must not train, though others may. It says so in place of its trainer,
    and leaves no sooner than after any other failure: srun would end rank 0, which has yet to write
    it down.
    """
    number = 0
    while True:
        key = job.key(number)
        if refused is not None:
            rank.refuse(job, key, refused)
        place = rounds.opening_path(job.stage.attempts, key)
        opening = _await(job, place, rounds.Opening, OPENING_S)
        if opening is None:
            print("rank 0 did not open a round", flush=True)
            return Ended(FAILED, requeue=False)
        if opening.refused is not None:
            return Ended(opening.refused, requeue=False)
        if refused is None:
            rank.ending(job, key, rank.run(job, key, opening))
        place = rounds.closing_path(job.stage.attempts, key)
        closing = _await(job, place, rounds.Closing, CLOSING_S)
        if closing is None:
            print("rank 0 did not say what comes next", flush=True)
            return Ended(FAILED, requeue=False)
        if closing.then != "again":
            return Ended(closing.exit_code, requeue=closing.then == "requeue")
        number += 1
        if refused is not None:
            refused = refusal.refusal(job, opening.rung)


def _await(job: Job, place: Path, kind: type[Word], seconds: float) -> Word | None:
    """What the supervisor of rank 0 says there; None: it does not, or this job is ended."""
    waited = Awake()
    while True:
        # A disk that does not answer now is asked again.
        with suppress(OSError):
            said = rounds.heard(place, kind)
            if said is not None:
                return said
        if waited() > seconds or job.signals.now or job.deserted():
            return None
        time.sleep(POLL_S)


def serve_policy(job: Job, rung: int) -> int:
    """Serve until the attempt is over; the exit code."""
    try:
        variables = patient(job, lambda: environment(job.plan, job.planned.name))
    except (OSError, LauncherError) as error:
        return refuse_policy(job, refusal.unread(error))
    task = serve.Task(job.paths, job.plan, job.planned.at(rung), job.start, job.rank, variables)
    code = serve.run(task, job.signals, job.deserted)
    if code == 0:
        return 0
    return _server_failed(job, code, CLOSING_S)


def refuse_policy(job: Job, refused: Refusal) -> int:
    """Say that there is no server, because this task must not serve; the exit code."""
    rank.refuse(job, job.start.round_key, refused)
    reason = refused.failure.message if refused.failure is not None else refused.outcome
    server = serving.Server(job.start, "failed", reason=reason)
    patient(job, lambda: serving.write(job.stage, server))
    return _server_failed(job, refused.exit_code, OPENING_S + CLOSING_S)


def _server_failed(job: Job, code: int, seconds: float) -> int:
    """Slurm ends the whole job with the first task that fails: not before rank 0 has said what
    comes next, and what it says is told with the server's own reason."""
    waited = Awake()
    while waited() < seconds and not (job.signals.now or job.deserted()):
        written = None
        # A disk that does not answer now is asked again.
        with suppress(OSError):
            written = job.start.receipt(job.stage)
        if written is not None and written.outcome is not None:
            key = job.start.round_key
            found = patient(job, partial(attempts.failures, job.stage.attempts, key))
            server = next((each for each in found if each.rank >= job.world), written.failure)
            told = partial(attempts.finish, job.stage.attempts, replace(written, failure=server))
            patient(job, told)
            return 0 if written.answer in ("again", "rung", "requeue") else code
        time.sleep(POLL_S)
    return code
