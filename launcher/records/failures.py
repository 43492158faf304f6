"""Why an attempt did not finish its stage, and what is done about it. Pure.

Every class has one answer and a bound: how often it may come before there is a newer committed
checkpoint. What fails the same way each time is not tried again at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from launcher.records.attempts import Attempt

FailureClass = Literal[
    "preempted", "time limit", "node", "controller", "lost rank", "out of memory", "host memory",
    "hang", "disk", "network", "held", "nan", "user", "changed", "program", "no progress",
]  # fmt: skip
"""`lost rank`: a process was ended from outside and nobody said why. `held`: Slurm put the job back
and holds it. `changed`: model, data or code are not what an earlier attempt began with. `program`:
an error that the same attempt would meet again."""

Answer = Literal["again", "rung", "requeue", "end"]
"""`again`: the same once more, in the same allocation while it stands, else as a requeued job;
`rung`: the next rung of the plan's ladder, in the same allocation where it fits there; `requeue`:
the same job id back into the queue; `end`: the stage has failed."""


@dataclass(frozen=True)
class Response:
    """What is done about a class of failure."""

    answer: Answer
    bound: int = 0
    """So many attempts without progress are answered; at the next it ends all the same."""
    pause_s: float = 0
    """Before the next attempt."""


RESPONSES: Mapping[FailureClass, Response] = {
    "preempted": Response("requeue", 10),
    "time limit": Response("requeue", 5),
    "node": Response("requeue", 5),
    "controller": Response("requeue", 5),
    "held": Response("requeue", 3),
    "lost rank": Response("again", 3, pause_s=1),
    "host memory": Response("again", 2, pause_s=1),
    "hang": Response("again", 3, pause_s=1),
    "disk": Response("again", 10, pause_s=30),
    "network": Response("again", 3, pause_s=30),
    "out of memory": Response("rung"),
    "nan": Response("end"),
    "user": Response("end"),
    "changed": Response("end"),
    "program": Response("end"),
    "no progress": Response("end"),
}


@dataclass(frozen=True)
class Decision:
    """What comes after an attempt that did not finish its stage."""

    answer: Answer
    rung: int
    """The rung of the next attempt (0: the plan as it stands)."""
    failure: FailureClass
    """`no progress` where a bound was reached."""
    pause_s: float = 0


def decide(attempts: Sequence[Attempt], failure: FailureClass, rungs: int) -> Decision:
    """The answer to the last of `attempts` (the oldest first), which failed by `failure`.

    `rungs`: how many the plan's ladder has, the plan as it stands not counted. Attempts of one
    submission count together: whoever submits a stage again means that it be tried again.
    """
    last = attempts[-1]
    response = RESPONSES[failure]
    if response.answer == "end":
        return Decision("end", last.rung, failure)
    if response.answer == "rung":
        if last.rung < rungs:
            return Decision("rung", last.rung + 1, failure)
        return Decision("end", last.rung, failure)
    same = [each for each in attempts if each.token == last.token]
    if without_progress(same, failure) > response.bound:
        return Decision("end", last.rung, "no progress")
    return Decision(response.answer, last.rung, failure, response.pause_s)


def without_progress(attempts: Sequence[Attempt], failure: FailureClass) -> int:
    """How many of `attempts` failed by `failure`, the last one among them, since one left a newer
    checkpoint or began on another rung.

    Other failures between them count for nothing, good or bad: each has its own bound.
    """
    if not attempts:
        return 0
    count = 1
    for attempt in reversed(attempts[:-1]):
        if attempt.outcome == "superseded":
            continue
        if attempt.rung != attempts[-1].rung or attempt.reached > attempt.began_at:
            break
        count += attempt.failed == failure
    return 0 if attempts[-1].reached > attempts[-1].began_at else count


def first_rung(attempts: Sequence[Attempt]) -> int:
    """The rung that the next attempt begins on, whoever starts it and in whichever job: memory that
    did not do once will not do later."""
    last = _last(attempts)
    return last.rung + (last.answer == "rung") if last is not None else 0


def last_rung(attempts: Sequence[Attempt]) -> int:
    """The rung that the last attempt was on, whose checkpoints are there; 0: there was none."""
    last = _last(attempts)
    return last.rung if last is not None else 0


def _last(attempts: Sequence[Attempt]) -> Attempt | None:
    return next((each for each in reversed(attempts) if each.outcome != "superseded"), None)
