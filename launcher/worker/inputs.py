"""Whether a stage still has what it began with, before anything of it is loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from launcher.models import cache
from launcher.plan import inputs as planned
from launcher.plan.types import Plan
from launcher.records import attempts, inputs, journal
from launcher.records.paths import RunPaths


def changed(run: RunPaths, plan: Plan, stage: str) -> str | None:
    """What moved since the stage's first attempt, with the way out; None: nothing that matters.

    Notes what it began with, at its first attempt, and after a change that was accepted. Only rank
    0 looks: the others wait for it when they join.
    """
    if os.environ.get("RANK", "0") != "0":
        return None
    paths = run.stage(stage)
    events = journal.read(run.journal)
    before = inputs.read(paths)
    now = inputs.gather(
        run,
        planned.recipe_digest(plan, stage),
        planned.sources(plan, stage),
        lambda kind, name: cache.commit(
            name, cache.hub_cache(os.environ, Path.home()), _kind(kind)
        ),
        before,
    )
    moves = inputs.moved(before, now) if before is not None else ()
    if (
        moves
        and before is not None
        and not inputs.accepted(events, stage, before.event)
        and not inputs.begins_anew(paths, attempts.read(paths.attempts))
    ):
        return (
            f"{'; '.join(moves)}, since the stage began: put it back, or go on with what is there:"
            f" launcher resume {run.root.name} --accept-change"
        )
    for move in moves:
        print(f"the stage goes on with a change: {move}", flush=True)
    newest = events[-1].number if events else 0
    inputs.write(paths, replace(inputs.merged(before, now), event=newest))
    return None


def _kind(kind: str) -> cache.Kind:
    return "data" if kind == "data" else "model"
