"""The job of one stage, as the engines take it."""

from __future__ import annotations

import sys

from launcher.plan.types import Plan
from launcher.records.paths import RunPaths
from launcher.scheduler.jobs import JobRequest


def job_request(
    run: RunPaths,
    plan: Plan,
    stage: str,
    token: str,
    dependencies: tuple[str, ...] = (),
    after: tuple[str, ...] = (),
    rung: int = 0,
) -> JobRequest:
    """What to ask of the scheduler for `stage` of the run, on a rung of the plan's ladder."""
    planned = plan.stage(stage).at(rung)
    return JobRequest(
        run=run.root,
        run_id=run.root.name,
        stage=stage,
        token=token,
        allocation=planned.allocation,
        cluster=plan.cluster,
        logs=run.stage(stage).logs,
        code=run.code,
        python=plan.cluster.python or sys.executable,
        env=planned.stage.env,
        dependencies=dependencies,
        after=after,
        advance=plan.cluster.engine == "slurm" and plan.cluster.nodes_may_submit,
    )
