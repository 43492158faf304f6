"""What a job makes sure of before it loads anything: whose files they are, and what they may do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from launcher.errors import UsageError
from launcher.models import cache
from launcher.plan.inputs import sources
from launcher.plan.types import Plan
from launcher.records import ownership
from launcher.records.failures import FailureClass
from launcher.records.paths import RunPaths
from launcher.worker import inputs, secrets

_PICKLED = ("pytorch_model*.bin", "adapter_model*.bin", "model*.bin", "*.pt", "*.pth", "*.ckpt")


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
        why = pickled(folder)
        if why is not None:
            return "user", f"stages.{stage}.{key}: {why}"
    moved = inputs.changed(run, plan, stage)
    return ("changed", moved) if moved is not None else None


def pickled(folder: Path) -> str | None:
    """Why the weights in a model's folder are not loaded, with the way out; None: they may be.

    A pickle is a program: whoever wrote it decides what it does.
    """
    if any(folder.glob("*.safetensors")):
        return None
    found = next((path for kind in _PICKLED for path in sorted(folder.glob(kind))), None)
    if found is None:
        return None
    return (
        f"{folder} has its weights in a pickle ({found.name}), which is never loaded; convert it"
        " where you trust it: load it there and `save_pretrained(FOLDER)`, which writes safetensors"
    )


def _folders(run: RunPaths, plan: Plan, stage: str) -> Iterator[tuple[str, Path]]:
    """Every model's folder that is on this machine, by the key that names it."""
    hub = cache.hub_cache(os.environ, Path.home())
    for key, (kind, name) in sources(plan, stage).items():
        if kind == "stage":
            yield key, run.stage(name).model
        elif kind == "model" and Path(name).is_absolute():
            yield key, Path(name)
        elif kind == "model":
            found = cache.snapshot(name, hub)
            if found is not None:
                yield key, found
