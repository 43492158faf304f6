"""The supervisor of rank 0: it opens and closes rounds, leaves the receipts, and decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from launcher.records import attempts, checkpoints, complete, failures, journal, rounds
from launcher.records.failures import Answer, FailureClass
from launcher.worker import child, diagnosis, receipt
from launcher.worker.awake import Awake
from launcher.worker.outcome import FAILED, STOPPED, SUPERSEDED
from launcher.worker.supervision import rank
from launcher.worker.supervision.job import Ended, Job
from launcher.worker.supervision.patience import patient
from launcher.worker.supervision.refusal import Refusal
from launcher.worker.supervision.replaced import Replaced
from launcher.worker.vllm import address

POLL_S = child.POLL_S
GATHER_S = 30.0
"""How long the others may take to say what became of theirs, once rank 0's has ended."""


def lead(job: Job, rung: int) -> Ended:
    """Round after round, until the stage is done or this start of the job can do no more for it.

    Raises OSError where the disk of the run stays full, or does not answer, for longer than
    `disk.PATIENCE_S`.
    """
    patient(job, lambda: receipt.close_open(job.stage, job.token), tidy=True)
    given_up = patient(job, lambda: _given_up(job), tidy=True)
    number = 0
    while not given_up:
        begun = patient(job, partial(_begin, job, number, rung), tidy=True)
        # For the ranks to meet at. Should another program take it in between, the round fails, and
        # the next has another.
        key, opening = job.key(number), rounds.Opening(rung, address.free_port(""))
        if job.world > 1:
            place = rounds.opening_path(job.stage.attempts, key)
            patient(job, partial(rounds.say, place, opening), tidy=True)
        replaced = Replaced(job.stage.attempts, begun)
        ran = rank.run(job, key, opening, replaced)
        if patient(job, replaced.look):
            print("a later start of this job has taken over", flush=True)
            return Ended(SUPERSEDED, requeue=False)
        endings = _gather(job, key, rank.ending(job, key, ran))
        told = diagnosis.told_class(
            time.time() - job.began,
            job.planned.at(rung).allocation.time_minutes,
            job.planned.at(rung).allocation.signal_lead_s,
        )
        judged = partial(_judge, job, begun, endings, told)
        ended, closing, rung, pause_s = patient(job, judged)
        nobody_writes = len(endings) == job.world
        patient(job, partial(attempts.finish, job.stage.attempts, ended), tidy=nobody_writes)
        receipt.share(job.plan, job.planned.name, ended)
        if job.world > 1:
            place = rounds.closing_path(job.stage.attempts, key)
            patient(job, partial(rounds.say, place, closing), tidy=nobody_writes)
        if closing.then != "again":
            return Ended(closing.exit_code, requeue=closing.then == "requeue")
        said = ended.failure.message if ended.failure is not None else ended.failed
        print(f"round {number} failed: {said}; once more at rung {rung}", flush=True)
        job.pause(pause_s)
        number += 1
    refuse(job, rung, FAILED)
    return Ended(FAILED, requeue=False)


def refused(job: Job, rung: int, why: Refusal) -> Ended:
    """Leave the receipt of a start that must not train, and tell the other ranks."""
    begun = patient(job, lambda: job.receipt(0, rung))
    last = replace(begun, ended=time.time(), **vars(why), answer="end")
    if why.failed == "disk":
        # It may answer at the next start.
        before = patient(job, job.receipts)
        decision = failures.decide((*before, last), "disk", len(job.planned.ladder))
        answer: Answer = "end" if decision.answer == "end" else "requeue"
        last = replace(last, answer=answer, failed=decision.failure)
    patient(job, lambda: attempts.start(job.stage.attempts, last))
    refuse(job, rung, why.exit_code)
    return Ended(why.exit_code, requeue=last.answer == "requeue")


def refuse(job: Job, rung: int, exit_code: int) -> None:
    """Tell the other ranks that there is no round."""
    if job.world > 1:
        place = rounds.opening_path(job.stage.attempts, job.key(0))
        patient(job, lambda: rounds.say(place, rounds.Opening(rung, 0, refused=exit_code)))


def _begin(job: Job, number: int, rung: int) -> attempts.Attempt:
    """The receipt of a round that begins."""
    _make_way(job, rung)
    return attempts.start(job.stage.attempts, job.receipt(number, rung))


def _given_up(job: Job) -> bool:
    """Whether jobs of this stage die without a word, again and again."""
    written = job.receipts()
    if not written or written[-1].failed != "node":
        return False
    decision = failures.decide(written, "node", len(job.planned.ladder))
    if decision.answer != "end":
        return False
    count = failures.without_progress(written, "node")
    last = receipt.decided(written[-1], "end", decision.failure, count)
    print(last.failure.message if last.failure else decision.failure, flush=True)
    attempts.finish(job.stage.attempts, last)
    return True


def _make_way(job: Job, rung: int) -> None:
    """Set checkpoints aside that this rung cannot go on from."""
    before = failures.last_rung(attempts.read(job.stage.attempts))
    number = job.planned.begins_anew(before, rung)
    if number is not None:
        why = f"rung {number} of the ladder ({job.planned.ladder[number - 1].what})"
        checkpoints.set_all_aside(job.stage.checkpoints, f"{why} cannot load them")


def _judge(
    job: Job,
    begun: attempts.Attempt,
    endings: Sequence[rounds.Ending],
    told: FailureClass,
) -> tuple[attempts.Attempt, rounds.Closing, int, float]:
    """The receipt with its end, what comes next, at which rung, and after how many seconds."""
    found = attempts.failures(job.stage.attempts, begun.round_key)
    failed = diagnosis.failure_class(endings, found, job.world, told)
    if complete.read(job.stage) is not None:
        failed = None
    ended = receipt.ended(begun, job.stage, endings, failed)
    if failed is None:
        whole = replace(ended, outcome="complete", exit_code=0, failure=None)
        return whole, rounds.Closing("end", 0), begun.rung, 0
    if job.signals.stop and _cancelled(job):
        stopped = replace(ended, failed=None, answer="end")
        return stopped, rounds.Closing("end", STOPPED), begun.rung, 0
    history = [*(each for each in job.receipts() if each.number < ended.number), ended]
    decision = failures.decide(history, failed, len(job.planned.ladder))
    lasts = not job.served and not job.ending and len(endings) == job.world
    answer: Answer = decision.answer
    closing = rounds.Closing("end", ended.exit_code or FAILED)
    if answer == "again" and not lasts:
        answer = "requeue"
    if answer == "requeue":
        closing = rounds.Closing("requeue", STOPPED)
    elif answer == "again" or (answer == "rung" and _same_place(job, begun.rung, decision.rung)):
        closing = rounds.Closing("again", FAILED) if lasts else rounds.Closing("requeue", STOPPED)
    count = failures.without_progress(history, failed)
    judged = receipt.decided(ended, answer, decision.failure, count)
    return judged, closing, decision.rung, decision.pause_s


def _same_place(job: Job, now: int, then: int) -> bool:
    """Whether this job's allocation is the one of another rung too."""
    a, b = job.planned.at(now).allocation, job.planned.at(then).allocation
    return replace(a, time_minutes=0, signal_lead_s=0) == replace(
        b, time_minutes=0, signal_lead_s=0
    )


def _gather(job: Job, key: str, own: rounds.Ending) -> tuple[rounds.Ending, ...]:
    """What became of the trainers of all ranks, as far as their supervisors live to say so."""
    if job.served and own.exit_code not in (0, STOPPED):
        # The server's task has its own eyes: what it saw tells why this rank failed.
        time.sleep(5 * POLL_S)
    if job.world == 1:
        return (own,)
    waited = Awake()
    while True:
        found = patient(job, lambda: rounds.endings(job.stage.attempts, key))
        if len(found) == job.world or waited() > GATHER_S or job.signals.now:
            return found or (own,)
        time.sleep(POLL_S)


def _cancelled(job: Job) -> bool:
    known = journal.submissions(journal.read(job.paths.journal))
    return known[job.planned.name].cancelled
