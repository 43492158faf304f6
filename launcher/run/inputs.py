"""Whether what a stage was made from is still there, as a login node can tell."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.errors import UsageError
from launcher.models import cache
from launcher.plan import inputs as planned
from launcher.plan.types import Plan
from launcher.records import attempts, complete, inputs, journal
from launcher.records.paths import RunPaths


def stale(run: RunPaths, plan: Plan, stage: str) -> tuple[str, ...]:
    """What moved since the stage began, each in words; empty: nothing, or it was accepted, or the
    stage has not begun.

    Files that have the sizes and times that the node saw are not read; of others as much is read as
    `launcher.records.inputs` says.
    """
    paths = run.stage(stage)
    done = complete.read(paths)
    before = inputs.read(paths)
    if before is None and done is not None and done.inputs:
        known = {key: inputs.Item("", digest) for key, digest in done.inputs.items()}
        before = inputs.Inputs(known)
    if before is None:
        return ()
    environment = {**os.environ, **plan.cluster.env, **plan.stage(stage).stage.env}
    hub = cache.hub_cache(environment, Path.home())
    now = inputs.gather(
        run,
        planned.recipe_digest(plan, stage),
        planned.sources(plan, stage),
        lambda kind, name: cache.commit(name, hub, "data" if kind == "data" else "model"),
        before,
    )
    moves = inputs.moved(before, now)
    if not moves or inputs.accepted(journal.read(run.journal), stage, before.event):
        return ()
    if done is None and inputs.begins_anew(paths, attempts.read(paths.attempts)):
        return ()
    return moves


def refuse_changes(run: RunPaths, plan: Plan) -> None:
    """Raise UsageError where a stage that has begun, or is complete, was made from something that
    moved since, unless that was accepted."""
    for stage in plan.stages:
        moves = stale(run, plan, stage.name) if stage.stage.use is None else ()
        if moves:
            name = run.root.name
            raise UsageError(
                f"stage {stage.name} of {name}: {'; '.join(moves)}",
                hint=f"launcher resume {name} --accept-change goes on all the same, --from "
                f"{stage.name} runs it again",
            )
