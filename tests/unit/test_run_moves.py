"""What an acting command does with each stage, from every way in which a run may stand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from launcher.records.journal import Submission
from launcher.run.moves import RELEASES, moves
from launcher.run.state import RunState, StageState
from tests.unit.running import ON_SLURM

STAGES = ("sft", "rm", "ppo", "eval")


def stage(words: str) -> StageState:
    """`pending` (in the queue), `pending held`, `failed again`, `blocked gone`, …"""
    state, _, more = words.partition(" ")
    queued = state in ("pending", "running") or (state == "blocked" and more != "gone")
    found = StageState("", "sft", state, queued=queued, held=more == "held")  # type: ignore[arg-type]
    if state == "failed":
        failure = "user" if more == "end" else "node"
        found = replace(found, failed=failure, answer=more)  # type: ignore[arg-type]
    return found


@dataclass(frozen=True)
class Case:
    states: str
    advance: str
    """What `launcher advance` does with each stage."""
    person: str
    """What a person's `resume` does."""
    released: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """Of `advance`."""


CASES = {
    "nothing was submitted": Case(
        "absent, absent, absent, absent", "send, send, send, send", "send, send, send, send"
    ),
    "all waits or runs": Case(
        "running, pending, pending, pending", "keep, keep, keep, keep", "keep, keep, keep, keep"
    ),
    "a finished model and a complete stage": Case(
        "given, complete, running, pending", "none, none, keep, keep", "none, none, keep, keep"
    ),
    "a submission was interrupted": Case(
        "running, pending, absent, absent", "keep, keep, send, send", "keep, keep, send, send"
    ),
    "a failure that may pass": Case(
        "complete, failed again, blocked, pending",
        "none, send, keep, keep",
        "none, send, keep, keep",
    ),
    "a failure that another rung answers": Case(
        "complete, failed rung, blocked, pending",
        "none, send, keep, keep",
        "none, send, keep, keep",
    ),
    "a failure for good takes all behind it out of the queue": Case(
        "complete, failed end, blocked, pending",
        "none, leave, drop, drop",
        "none, send, keep, keep",
        reasons={"ppo": "stage rm did not finish (user)", "eval": "stage rm did not finish (user)"},
    ),
    "what was taken out comes back with what it waited for": Case(
        "complete, running, blocked gone, blocked gone",
        "none, keep, send, send",
        "none, keep, send, send",
    ),
    "what a user cancelled stays so": Case(
        "cancelled, blocked, pending, pending",
        "leave, drop, drop, drop",
        "send, keep, keep, keep",
        reasons={"rm": "stage sft was cancelled"},
    ),
    "a stage that ran before its need was finished failed for no reason of its own": Case(
        "failed again, failed end, blocked, blocked",
        "send, send, keep, keep",
        "send, send, keep, keep",
    ),
    "a job that Slurm holds": Case(
        "complete, pending held, pending, pending",
        "none, release, keep, keep",
        "none, release, keep, keep",
    ),
    "a job that Slurm holds time after time": Case(
        "complete, pending held, pending, pending",
        "none, give up, drop, drop",
        "none, give up, drop, drop",
        released=RELEASES,
        reasons={"ppo": "stage rm did not finish (held)"},
    ),
    "a job that runs is not ended for what failed before it": Case(
        "failed end, running, pending, pending",
        "leave, keep, drop, drop",
        "send, keep, keep, keep",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_stage_is_moved_as_the_run_stands(name: str) -> None:
    case = CASES[name]
    stages = zip(STAGES, case.states.split(", "), strict=True)
    now = RunState("r", tuple(replace(stage(words), name=at) for at, words in stages))
    known = {at: Submission(at, "t", "1", released=case.released) for at in STAGES}
    of_advance = moves(now, ON_SLURM, known, asked=())
    assert ", ".join(move.kind for move in of_advance) == case.advance
    of_person = moves(now, ON_SLURM, known, asked=STAGES)
    assert ", ".join(move.kind for move in of_person) == case.person
    reasons = {move.stage: move.reason for move in of_advance}
    assert case.reasons.items() <= reasons.items()
