"""What a job makes sure of before it loads anything: whose files they are, and what they may do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from launcher.errors import UsageError
from launcher.models import cache
from launcher.plan.inputs import sources
from launcher.plan.types import Plan
from launcher.recipe.paths import PICKLED, pickled_weights
from launcher.records import ownership
from launcher.records.failures import FailureClass
from launcher.records.paths import RunPaths
from launcher.worker import inputs, secrets


def refusal(run: RunPaths, plan: Plan, stage: str) -> tuple[FailureClass, str] | None:
    """Why the stage must not start, as a class of failure and a sentence; None: it may."""
    foreign = ownership.planted(run)
    if foreign is not None:
        return "user", f"{foreign}; {ownership.way_out(run.root)}"
    try:
        secrets.variables(plan.cluster.secrets)
    except UsageError as error:
        return "user", f"{error.message}; {error.hint}"
    for key, folder in _folders(run, plan, stage):
        found = pickled_weights(folder)
        if found is not None:
            return "user", f"stages.{stage}.{key}: {folder} {PICKLED.format(found)}"
    moved = inputs.changed(run, plan, stage)
    return ("changed", moved) if moved is not None else None


def _folders(run: RunPaths, plan: Plan, stage: str) -> Iterator[tuple[str, Path]]:
    """Every model's folder that is on this machine, by the key that names it."""
    hub = cache.hub_cache(os.environ, Path.home())
    for key, (kind, name) in sources(plan, stage).items():
        if kind == "stage":
            yield key, run.stage(name).model
        elif kind == "model":
            found = cache.folder_of(name, hub)
            if found is not None:
                yield key, found
