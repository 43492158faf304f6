"""Why a job that is over did not finish its stage: its receipts first, then Slurm's word. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from launcher.records.attempts import Attempt
from launcher.records.failures import Decision, FailureClass, decide
from launcher.records.journal import Submission
from launcher.scheduler.jobs import QueuedJob

# Slurm's state of a job → the class of its failure. FAILED says nothing of why.
_WORDS: Mapping[str, FailureClass] = {
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "host memory",
}


def failure(
    submission: Submission, attempts: Sequence[Attempt], job: QueuedJob | None
) -> FailureClass:
    """The class of the failure of `submission`, whose job is over or gone.

    `attempts`: all receipts of the stage; `job`: what Slurm still knows of the job.
    """
    receipt = last_of(submission.token, attempts)
    if receipt is not None and receipt.failed is not None:
        return receipt.failed
    if submission.failure is not None:
        return submission.failure
    word = _WORDS.get(job.word) if job is not None else None
    if word is not None:
        return word
    if receipt is None:
        # Gone without a trace: the controller lost it. Else something ended it before our program
        # could say a word, which may pass: a signal, a file system, a node.
        return "controller" if job is None else "lost rank"
    if receipt.outcome is None:
        return "node" if job is None else "lost rank"
    return _of(receipt)


def _of(receipt: Attempt) -> FailureClass:
    """Of a receipt with an end that names no class."""
    if receipt.out_of_memory:
        return "out of memory"
    if receipt.outcome == "killed":
        return "lost rank"
    if receipt.outcome in ("stopped", "terminated"):
        return "preempted"
    if receipt.failure is not None and receipt.failure.kind == "user":
        return "user"
    return "program"


def last_of(token: str, attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest receipt of a submission."""
    mine = [a for a in attempts if a.token == token and a.outcome != "superseded"]
    return mine[-1] if mine else None


def answer(
    submission: Submission,
    attempts: Sequence[Attempt],
    failed: FailureClass,
    *,
    rungs: int,
    reached: int,
) -> Decision:
    """What is to be done about it. `reached`: optimizer step of the newest committed checkpoint.

    What its supervisor decided stands, for it saw more; only a bound goes before.
    """
    past = history(submission, attempts, reached)
    past = (*past[:-1], replace(past[-1], failed=failed))
    decision = decide(past, failed, rungs)
    receipt = last_of(submission.token, attempts)
    if receipt is not None and receipt.answer == "end":
        return Decision("end", receipt.rung, failed)
    return decision


def history(
    submission: Submission, attempts: Sequence[Attempt], reached: int
) -> tuple[Attempt, ...]:
    """The attempts since a person asked last, under one token, each with the step it came to.

    A submission whose job left no receipt counts as an attempt that came to nothing. One that died
    without a word had come at least to where the next one began.
    """
    found: list[Attempt] = []
    tokens: list[str] = []
    for token in submission.tokens or (submission.token,):
        mine = [a for a in attempts if a.token == token and a.outcome != "superseded"]
        rung = submission.rung if token == submission.token else 0
        mine = mine or [Attempt(0, token, "", "", 0, submission.time, rung=rung)]
        found += mine
        tokens += [token] * len(mine)
    began = [attempt.began_at for attempt in found[1:]] + [reached]
    return tuple(
        replace(
            attempt,
            token=submission.token,
            reached=max(attempt.reached, after),
            failed=attempt.failed or submission.before.get(token) or _of_silent(attempt),
        )
        for attempt, token, after in zip(found, tokens, began, strict=True)
    )


def _of_silent(attempt: Attempt) -> FailureClass | None:
    """What is counted against an attempt that names no class itself."""
    if attempt.outcome == "complete":
        return None
    return "controller" if attempt.number == 0 else "node"
