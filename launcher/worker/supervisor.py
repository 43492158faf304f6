"""One thin process a task, without torch: it starts the trainer as its child and answers for it.

It checks that this job is the one the journal means and that what the stage builds on is finished
and whole, hands signals on, and ends a trainer that hangs, that does not stop in time, or whose
world has lost a rank. The supervisor of rank 0 leaves the receipts and decides what comes after a
failure: the same again or the next rung of the ladder within this start of the job (a round), the
job back into the queue, or the end. The others do what it says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from launcher.plan.document import plan_from_json
from launcher.plan.types import Plan
from launcher.records import attempts, complete, failures
from launcher.records.paths import RunPaths
from launcher.worker import disk, streams
from launcher.worker.signals import Signals
from launcher.worker.supervision import follow, lead, refusal
from launcher.worker.supervision.job import Ended, Job


def supervise(
    run: str,
    stage: str,
    token: str,
    job_id: str,
    deserted: Callable[[], bool],
    restarts: int = 0,
) -> Ended:
    """Run one start of the job of `stage` on this rank, which is read from RANK as torch does.

    `deserted` says whether whoever started this job is gone, so that the job must end too;
    `restarts`: how often the scheduler had started this job before.
    """
    os.umask(0o077)
    streams.guard()
    signals = Signals()
    signals.install()
    paths = RunPaths(Path(run))
    rank = int(os.environ["RANK"])

    def found() -> tuple[Plan, tuple[attempts.Attempt, ...], bool]:
        own = paths.stage(stage)
        plan = plan_from_json(paths.plan.read_text())
        return plan, attempts.read(own.attempts), complete.read(own) is not None

    plan, receipts, done = disk.waited_out(found, lambda: signals.stop or deserted())
    if done:
        print(f"stage {stage} is complete already", flush=True)
        return Ended(0, requeue=False)
    planned = plan.stage(stage)
    served = planned.allocation.server_gpus > 0
    rung = failures.first_rung(receipts)
    allocation = planned.at(rung).allocation
    # The server's tasks come after the trainers' and are not of their world.
    world = allocation.processes if served else int(os.environ["WORLD_SIZE"])
    job = Job(
        paths, plan, planned, token, job_id, restarts, rank, world, signals, deserted, time.time()
    )
    refused = refusal.refusal(job, rung)
    if refused is not None:
        print(refused.failure.message if refused.failure else refused.outcome, flush=True)
        if rank == 0:
            return lead.refused(job, rung, refused)
        if refused.failure is not None and rank >= world:
            return Ended(follow.refuse_policy(job, refused), requeue=False)
        if refused.failure is not None:
            return follow.follow(job, refused)
        return Ended(refused.exit_code, requeue=False)
    if rank >= world:
        return Ended(follow.serve_policy(job, rung), requeue=False)
    return lead.lead(job, rung) if rank == 0 else follow.follow(job)
