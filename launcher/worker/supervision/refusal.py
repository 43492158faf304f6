"""Why a job must not train."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from launcher.errors import LauncherError
from launcher.records import attempts, complete, journal
from launcher.records.failures import FailureClass
from launcher.worker import classify, trust
from launcher.worker.outcome import FAILED, SUPERSEDED, USER_ERROR
from launcher.worker.supervision.job import Job
from launcher.worker.supervision.patience import patient
from launcher.worker.vllm import serve


@dataclass(frozen=True)
class Refusal:
    outcome: attempts.Outcome
    exit_code: int
    failure: attempts.Failure | None = None
    failed: FailureClass | None = None


def refusal(job: Job, rung: int) -> Refusal | None:
    """Why this job must not train, or None.

    A disk that does not answer is waited for; where it stays so, that is why, and no mistake.
    Raises OSError for a file that is not to be read for another reason.
    """
    try:
        return patient(job, lambda: _refusal(job, rung))
    except OSError as error:
        return unread(error)


def unread(error: OSError | LauncherError) -> Refusal:
    """That what a start needs is not as it should be, or that a disk did not give it, which may
    pass. Raises the error where it is of another sort."""
    if isinstance(error, LauncherError):
        return _refused(_words(error))
    if not classify.of_the_disk(error):
        raise error
    return _refused(str(error), "disk", FAILED)


def _refusal(job: Job, rung: int) -> Refusal | None:
    paths, plan, stage, token = job.paths, job.plan, job.planned.name, job.token
    events = journal.read(paths.journal)
    current = journal.submissions(events).get(stage)
    if current is None or current.token != token or current.cancelled:
        return Refusal("superseded", SUPERSEDED)
    # A stage that is to be run anew has its files moved, and one before it other weights to come.
    moved = {stage, *plan.stage(stage).stage.needs} & journal.rerun(events)
    if moved or journal.run_cancelled(events):
        return Refusal("superseded", SUPERSEDED)
    try:
        for name in plan.stage(stage).stage.needs:
            if plan.stage(name).stage.use is None:
                complete.verify(paths.stage(name))
    except LauncherError as error:
        return _refused(_words(error))
    distrusted = trust.refusal(paths, plan, stage)
    if distrusted is not None:
        failed, words = distrusted
        return _refused(words, failed)
    needed = job.planned.at(rung).allocation.processes
    if job.world != needed:
        return _refused(
            f"this job has {job.world} processes, rung {rung} of the plan's ladder {needed}"
        )
    without = serve.missing(plan.stage(stage), platform.node())
    if without is not None:
        return _refused(without)
    return None


def _refused(words: str, failed: FailureClass = "user", exit_code: int = USER_ERROR) -> Refusal:
    failure = attempts.Failure(rank=0, message=words, traceback="", kind=failed)
    return Refusal("error", exit_code, failure, failed)


def _words(error: LauncherError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
