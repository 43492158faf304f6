"""Whether a stage can go on from the checkpoints that it has, as a login node can tell."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.records import attempts, checkpoints, failures
from launcher.records.paths import RunPaths


def unfit(run: RunPaths, plan: Plan, stage: str, rung: int) -> str | None:
    """Why the stage cannot go on from its newest checkpoint on that rung of its ladder, in words;
    None: it can, it has none, or it sets them aside there.

    No more is read than COMMIT.json. Raises OSError.
    """
    paths, planned = run.stage(stage), plan.stage(stage)
    there = checkpoints.committed(paths.checkpoints)
    before = failures.last_rung(attempts.read(paths.attempts))
    if not there or planned.begins_anew(before, rung) is not None:
        return None
    on = planned.at(rung)
    return checkpoints.unfit(there[-1], on.allocation.processes, on.zero_stage, on.offload)


def refuse_unfit(run: RunPaths, plan: Plan, rungs: Mapping[str, int]) -> None:
    """Raise UsageError where a stage of `rungs`, each with the rung that it is to be sent on,
    cannot go on from its newest checkpoint."""
    for stage, rung in rungs.items():
        why = unfit(run, plan, stage, rung)
        if why is not None:
            name = run.root.name
            raise UsageError(
                f"stage {stage} of {name}: {why}",
                hint=f"give the stage back in {run.plan} what it had, or train it from its start:"
                f" launcher resume {name} --from {stage}, which keeps what it has left aside",
            )
