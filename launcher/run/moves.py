"""What an acting command is to do with each stage of a run, from how the run stands. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from launcher.plan.types import Plan
from launcher.records.journal import Submission
from launcher.run.state import RunState, StageState

Kind = Literal["none", "keep", "send", "release", "give up", "drop", "leave"]
"""`none`: nothing to run. `keep`: its job is in the queue. `send`: a new job. `release`: from a
hold of Slurm's. `give up`: held too often. `drop`: out of the queue. `leave`: it stays as it is,
and so do those after it."""

RELEASES = 3
"""How often a job that Slurm holds after a failed start is released."""


@dataclass(frozen=True)
class Move:
    stage: str
    kind: Kind
    reason: str = ""
    """Why it is dropped or left, in words."""
    rung: int = 0
    """Of a job that is sent."""


def moves(
    now: RunState, plan: Plan, known: Mapping[str, Submission], *, asked: Collection[str]
) -> tuple[Move, ...]:
    """One move a stage, in run order.

    `asked`: the stages that a person asked for, so that one which failed is tried again whatever
    its class, and one that was cancelled goes on; else only what the class of failure allows.
    """
    lost: dict[str, str] = {}
    found: list[Move] = []
    for stage in now.stages:
        needs = plan.stage(stage.name).stage.needs
        cause = next((lost[name] for name in needs if name in lost), None)
        unfinished = _unfinished(now, needs)
        person = stage.name in asked
        move = _move(stage, cause, unfinished, known.get(stage.name), person)
        if move.kind in ("drop", "leave", "give up"):
            lost[stage.name] = cause or f"stage {stage.name} {_words(stage, move)}"
        found.append(move)
    return tuple(found)


def _move(
    stage: StageState, cause: str | None, unfinished: bool, known: Submission | None, person: bool
) -> Move:
    if stage.state in ("given", "complete"):
        return Move(stage.name, "none")
    if stage.queued:
        if cause is not None and stage.state != "running":
            return Move(stage.name, "drop", cause)
        if stage.held:
            often = known is not None and known.released >= RELEASES
            return Move(stage.name, "give up" if often else "release", stage.reason)
        return Move(stage.name, "keep", rung=stage.rung)
    if cause is not None:
        return Move(stage.name, "leave", cause)
    if stage.state == "cancelled" and not person:
        return Move(stage.name, "leave", "was cancelled")
    # What ran before that which it needs was finished failed for no reason of its own.
    final = stage.state == "failed" and stage.answer == "end" and not unfinished
    if final and not person:
        return Move(stage.name, "leave", stage.reason)
    return Move(stage.name, "send", rung=stage.rung)


def _unfinished(now: RunState, needs: Sequence[str]) -> bool:
    states = {stage.name: stage.state for stage in now.stages}
    return any(states[name] not in ("given", "complete") for name in needs)


def _words(stage: StageState, move: Move) -> str:
    if stage.state == "cancelled":
        return "was cancelled"
    if move.kind == "give up":
        return "did not finish (held)"
    return f"did not finish ({stage.failed})" if stage.failed else "did not finish"
