"""The supervisors beside rank 0's: those of the other ranks, and of the server's tasks."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher.records import attempts, rounds
from launcher.worker import child
from launcher.worker.awake import Awake
from launcher.worker.outcome import FAILED
from launcher.worker.supervision import rank
from launcher.worker.supervision.job import Ended, Job, environment
from launcher.worker.supervision.patience import PATIENCE_S, patient
from launcher.worker.vllm import serve

Word = TypeVar("Word", rounds.Opening, rounds.Closing)

POLL_S = child.POLL_S
OPENING_S = 3600.0
"""How long the supervisor of rank 0 may take to open a round: nodes of a job do not start together,
and before the first it hashes what the stage is made from, which may be many files of data on a
slow disk. Where it dies, srun ends the others without their asking."""
CLOSING_S = 60.0 + PATIENCE_S
"""How long it may take to close one after this rank's trainer has ended: it may have to wait for
the disk."""


def follow(job: Job) -> Ended:
    """Do as the supervisor of rank 0 says, until it says that this is over or is gone."""
    number = 0
    while True:
        key = job.key(number)
        place = rounds.opening_path(job.stage.attempts, key)
        opening = _await(job, place, rounds.Opening, OPENING_S)
        if opening is None:
            print("rank 0 did not open a round", flush=True)
            return Ended(FAILED, requeue=False)
        if opening.refused is not None:
            return Ended(opening.refused, requeue=False)
        rank.ending(job, key, rank.run(job, key, opening))
        place = rounds.closing_path(job.stage.attempts, key)
        closing = _await(job, place, rounds.Closing, CLOSING_S)
        if closing is None:
            print("rank 0 did not say what comes next", flush=True)
            return Ended(FAILED, requeue=False)
        if closing.then != "again":
            return Ended(closing.exit_code, requeue=closing.then == "requeue")
        number += 1


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
    variables = environment(job.plan, job.planned.name)
    task = serve.Task(job.paths, job.plan, job.planned.at(rung), job.start, job.rank, variables)
    code = serve.run(task, job.signals, job.deserted)
    if code == 0:
        return 0
    # Slurm ends the whole job with the first task that fails: not before rank 0 has said what
    # comes next, and what it says is told with the server's own reason.
    deadline = time.monotonic() + CLOSING_S
    while time.monotonic() < deadline and not (job.signals.now or job.deserted()):
        written = job.start.receipt(job.stage)
        if written is not None and written.outcome is not None:
            found = attempts.failures(job.stage.attempts, job.start.round_key)
            server = next((each for each in found if each.rank >= job.world), written.failure)
            told = partial(attempts.finish, job.stage.attempts, replace(written, failure=server))
            patient(job, told)
            return 0 if written.answer in ("again", "rung", "requeue") else code
        time.sleep(POLL_S)
    return code
