"""Why an attempt did not finish its stage, and what is done about it. Pure.

Every class has one answer and a bound: attempts in a row that made no progress, which is a newer
committed checkpoint. What fails the same way each time is not tried again at all.
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
    """Attempts in a row without progress after which it ends all the same."""
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

    `rungs`: how many the plan's ladder has, the plan as it stands not counted.
    """
    last = attempts[-1]
    response = RESPONSES[failure]
    if response.answer == "end":
        return Decision("end", last.rung, failure)
    if response.answer == "rung":
        if last.rung < rungs:
            return Decision("rung", last.rung + 1, failure)
        return Decision("end", last.rung, failure)
    if without_progress(attempts) > response.bound:
        return Decision("end", last.rung, "no progress")
    return Decision(response.answer, last.rung, failure, response.pause_s)


def without_progress(attempts: Sequence[Attempt]) -> int:
    """How many attempts at the end of `attempts` in a row left no newer checkpoint.

    Those that another rung answered count for nothing: the next attempt was another one.
    """
    count = 0
    rung = attempts[-1].rung if attempts else 0
    for attempt in reversed(attempts):
        if attempt.outcome == "superseded":
            continue
        if attempt.rung != rung or attempt.reached > attempt.began_at:
            break
        count += 1
    return count
