"""Why a round did not finish its stage: from what all its ranks left, one class. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from launcher.records.attempts import Failure, Outcome
from launcher.records.failures import FailureClass
from launcher.records.rounds import Ending
from launcher.worker.outcome import STOPPED

_ROOTS: tuple[FailureClass, ...] = (
    "user", "changed", "nan", "out of memory", "disk", "host memory",
)  # fmt: skip
"""What a rank says of itself and is not for want of the others, the surest first."""
_ABORTED = 128 + signal.SIGABRT
"""What NCCL's and gloo's threads do to a process that waits for one that is gone."""
LIMIT_SLACK_S = 90.0
"""Slurm may warn a minute early, and starts a job's clock before its tasks."""


def told_class(elapsed_s: float, time_minutes: int, signal_lead_s: float) -> FailureClass:
    """Whether a signal to stop, so long after the job's start, was of its time limit."""
    warning = time_minutes * 60 - signal_lead_s
    return "time limit" if elapsed_s >= warning - LIMIT_SLACK_S else "preempted"


def outcome(endings: Sequence[Ending], world: int) -> Outcome:
    """How the attempt ended, from its ranks' endings."""
    codes = {ending.exit_code for ending in endings}
    if codes == {0} and len(endings) == world:
        return "complete"
    if codes <= {0, STOPPED} and len(endings) == world:
        return "stopped"
    if any(ending.told for ending in endings) and not any(e.killed == "server" for e in endings):
        return "terminated"
    own = [ending for ending in endings if ending.killed != "others"]
    return "killed" if any(ending.exit_code > 128 for ending in own) or not own else "error"


def failure_class(
    endings: Sequence[Ending],
    failures: Sequence[Failure],
    world: int,
    told: FailureClass,
) -> FailureClass | None:
    """Why the round did not finish its stage; None: it did.

    `told`: what a signal to stop means, where one came.
    """
    ended = outcome(endings, world)
    if ended == "complete":
        return None
    said = {failure.kind for failure in failures}
    for root in _ROOTS:
        if root in said:
            return root
    if ended in ("stopped", "terminated") and "program" not in said:
        return told
    server = next((failure for failure in failures if failure.rank >= world), None)
    if server is not None:
        return "lost rank" if server.kind == "killed" else "program"
    if any(ending.killed == "ending" for ending in endings):
        return "node"
    if any(ending.out_of_host_memory for ending in endings):
        return "host memory"
    # A rank that was ended or that hung, before what the others say for want of it.
    if "killed" in said or any(_killed(ending) for ending in endings):
        return "lost rank"
    if any(ending.killed == "hang" for ending in endings):
        return "hang"
    if "network" in said:
        return "network"
    if "program" in said:
        return "program"
    aborted = any(ending.exit_code == _ABORTED for ending in endings)
    if "lost rank" in said or len(endings) < world or aborted:
        return "lost rank"
    if ended == "stopped" or any(ending.told for ending in endings):
        return told
    # An exit code and not a word.
    return "program"


def _killed(ending: Ending) -> bool:
    """Whether the trainer was ended from outside, by none of ours."""
    return ending.killed is None and ending.exit_code > 128 and ending.exit_code != _ABORTED


def first(failures: Sequence[Failure], failed: FailureClass, world: int) -> Failure | None:
    """The failure to tell of: the server's, else one of the class, else what was written first."""
    server = next((each for each in failures if each.rank >= world), None)
    kinds = ("killed", failed) if failed in ("lost rank", "host memory") else (failed,)
    of_class = next((each for kind in kinds for each in failures if each.kind == kind), None)
    return server or of_class or (failures[0] if failures else None)
