"""What the supervisor of rank 0 writes into the receipts of its stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launcher.plan.observe import observe
from launcher.plan.types import Plan
from launcher.records import attempts, checkpoints, ledger, measurement, rounds
from launcher.records.failures import Answer, FailureClass
from launcher.records.paths import StagePaths
from launcher.worker import diagnosis


def close_open(stage: StagePaths, token: str) -> None:
    """End the receipts of this submission whose supervisors died without a word: with their node,
    as far as one can tell."""
    for receipt in attempts.read(stage.attempts):
        if receipt.token == token and receipt.ended is None:
            dead = replace(
                receipt,
                ended=time.time(),
                outcome="killed",
                failed="node",
                answer="requeue",
                reached=checkpoints.newest_step(stage.checkpoints),
            )
            attempts.finish(stage.attempts, dead)


def ended(
    receipt: attempts.Attempt,
    stage: StagePaths,
    endings: Sequence[rounds.Ending],
    failed: FailureClass | None,
) -> attempts.Attempt:
    """The receipt with its end, the answer apart."""
    outcome = diagnosis.outcome(endings, receipt.processes)
    failures = attempts.failures(stage.attempts, receipt.round_key)
    first = diagnosis.first(failures, failed, receipt.processes) if failed is not None else None
    measured = measurement.read(stage.attempts, receipt.round_key)
    peaks = measured.peak_bytes if measured is not None else {}
    host = max((ending.host_peak for ending in endings), default=0)
    return replace(
        receipt,
        ended=time.time(),
        outcome=outcome,
        exit_code=exit_code(endings),
        failure=first,
        peak_bytes=peaks | {"host": max(host, peaks.get("host", 0))},
        measured=measured,
        reached=checkpoints.newest_step(stage.checkpoints),
        failed=failed,
    )


def exit_code(endings: Sequence[rounds.Ending]) -> int:
    """Of the attempt: that of a rank which ended by itself before those that were ended for it."""
    own = [each for each in endings if each.killed != "others"] or list(endings)
    return max((each.exit_code for each in own), default=1)


def decided(
    receipt: attempts.Attempt, answer: Answer, failed: FailureClass | None, before: int
) -> attempts.Attempt:
    """The receipt with what is made of its failure. `before`: attempts that failed alike."""
    failure = receipt.failure
    if failed == "no progress":
        said = failure.message if failure is not None else f"the attempt was {receipt.outcome}"
        words = f"{before} attempts came to no new checkpoint; the last one: {said}"
        failure = (
            replace(failure, message=words)
            if failure is not None
            else attempts.Failure(rank=0, message=words, traceback="", kind="no progress")
        )
    return replace(receipt, answer=answer, failed=failed, failure=failure)


def share(plan: Plan, stage: str, receipt: attempts.Attempt) -> None:
    """Leave what the attempt measured in the site's ledger, if there is one."""
    observation = observe(plan, plan.stage(stage), receipt)
    if plan.cluster.ledger is None or observation is None:
        return
    try:
        folder = Path(plan.cluster.ledger)
        ledger.add(folder, observation.when, observation.run, observation)
    except OSError as error:
        print(f"ledger {plan.cluster.ledger}: {error.strerror}", flush=True)
