"""What must be so of a run that a fault has hit, and of which every stage is COMPLETE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.records.paths import RunPaths
from tests.faults.case import Case
from tests.faults.fault import Fault, Lost

# Clocks of the watch and of COMPLETE are one; the watch looks four times a second.
_SLACK_S = 0.5


def weights(run: RunPaths, stages: Sequence[str]) -> dict[str, str]:
    """Stage → SHA-256 over its finished model's weights."""
    found = {}
    for stage in stages:
        sha = hashlib.sha256()
        files = sorted(run.stage(stage).model.glob("*.safetensors"))
        for path in files:
            sha.update(path.name.encode() + path.read_bytes())
        found[stage] = sha.hexdigest() if files else "none"
    return found


def redone(steps: Sequence[int]) -> int:
    """The most steps that were done a second time after one interruption. Pure."""
    most, last = 0, 0
    for step in steps:
        if step <= last:
            most = max(most, last - step + 1)
        last = step
    return most


def whole(case: Case, fault: Fault, reference: Mapping[str, str]) -> bool | None:
    """Whether the weights are the undisturbed run's; None: they need not be.

    Raises Lost with the first thing that is not as it must be.
    """
    assert case.watch is not None
    for stage, rank in sorted(case.watch.twice):
        raise Lost(f"stage {stage}, rank {rank}: two trainers at once")
    for stage in case.scene.stages:
        upstream(case, stage)
    for stage in case.scene.trained:
        steps = case.steps(stage)
        last = int(case.scene.stages[stage]["train"]["max_steps"])
        lacking = sorted(set(range(1, last + 1)) - set(steps))
        if len(lacking) > case.unlogged or max(steps, default=0) > last:
            raise Lost(f"stage {stage} did not log steps {lacking} of {last}, up to {max(steps)}")
        again = redone(steps)
        bound = fault.redo if stage == case.scene.target else 0
        if again > bound:
            raise Lost(f"stage {stage} did {again} steps twice, {bound} are allowed")
    case.until_gone()
    if not fault.same_weights:
        return None
    found = weights(case.root, case.scene.trained)
    for stage in case.scene.trained:
        if found[stage] != reference[stage]:
            raise Lost(f"stage {stage} has other weights than the undisturbed run")
    return True


def upstream(case: Case, stage: str) -> None:
    """A stage's trainer came after what it builds on was COMPLETE, and built on that very one."""
    assert case.watch is not None
    said = json.loads(case.root.stage(stage).complete.read_text())
    for name, digest in said["upstream"].items():
        path: Path = case.root.stage(name).complete
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Lost(f"stage {stage} was built on another {name}")
        done = json.loads(path.read_text())["finished"]
        first = case.watch.first.get(stage)
        if first is not None and first < done - _SLACK_S:
            raise Lost(f"stage {stage} began {done - first:.1f} s before {name} was complete")
