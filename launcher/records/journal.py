"""The journal of a run: one numbered file an event, never changed, numbers claimed one by one.

A number belongs to one event, on a shared file system too. So an event that must follow what its
writer has read (`append` with `after`) is written only where nobody wrote in between: launchers on
several hosts need no lock.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from launcher.records import files
from launcher.records.failures import FailureClass

Kind = Literal[
    "created", "intent", "submitted", "refused", "cancelled", "resumed", "dropped", "failed",
    "released", "again", "cleared", "accepted",
]  # fmt: skip
"""`cancelled` and `resumed` without a stage are the whole run's. `refused`: Slurm took no job.
`dropped`: taken out of the queue, for nothing will come of what it waits for. `failed`: what an
acting command found of a job that is over, before Slurm forgets it. `released`: from a hold of
Slurm's own. `again`: the stage is to be run anew though it was complete; `cleared`: what it had
left is aside. `accepted`: what changed since an earlier attempt is meant to be so."""


@dataclass(frozen=True)
class Event:
    kind: Kind
    time: float
    """Seconds since the epoch."""
    stage: str | None = None
    token: str | None = None
    """Names one submission of one stage; the job carries it, and trains only if it is current."""
    job_id: str | None = None
    detail: str | None = None
    """In words: why it was dropped, refused, or has failed."""
    number: int = 0
    failure: FailureClass | None = None
    """Of `failed`."""
    rung: int = 0
    """Of an intent: of the plan's ladder, for which the job was asked."""
    asked: bool = True
    """Of an intent or `resumed`: whether a person's command asked for it; else `advance` did."""
    host: str = ""
    pid: int = 0
    """Of the process that wrote an intent."""


@dataclass(frozen=True)
class Submission:
    """The newest submission of a stage, folded from its events."""

    stage: str
    token: str
    job_id: str | None
    """None: the intent was written, and nobody recorded what came of it."""
    cancelled: bool = False
    """Its job must not train: it was cancelled, dropped, or given up."""
    dropped: bool = False
    refused: bool = False
    reason: str = ""
    """Why, in words; empty: a person's command."""
    failure: FailureClass | None = None
    """What an acting command found of its job."""
    released: int = 0
    """How often its job was released from a hold."""
    rung: int = 0
    time: float = 0
    host: str = ""
    pid: int = 0
    tokens: tuple[str, ...] = ()
    """Of the submissions since a person asked last, this one at the end."""
    before: Mapping[str, FailureClass] = field(default_factory=dict)
    """Of those, token → what an acting command found of its job."""


def append(folder: Path, event: Event) -> Event:
    """Write `event` under the next free number. Returns it with that number."""
    files.private_folder(folder)
    number = last(folder) + 1
    while True:
        numbered = replace(event, number=number)
        if files.claim(_path(folder, number), files.encode(numbered)):
            return numbered
        number += 1


def append_after(folder: Path, event: Event, seen: int) -> Event | None:
    """Write `event` as the one after number `seen`. None where somebody wrote since."""
    files.private_folder(folder)
    numbered = replace(event, number=seen + 1)
    claimed = files.claim(_path(folder, seen + 1), files.encode(numbered))
    return numbered if claimed else None


def intent(stage: str, token: str, time: float, *, rung: int, asked: bool) -> Event:
    """That this process is about to submit `stage`."""
    host, pid = platform.node(), os.getpid()
    return Event("intent", time, stage, token, rung=rung, asked=asked, host=host, pid=pid)


def last(folder: Path) -> int:
    """The number of the newest event; 0: there is none."""
    return max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)


def read(folder: Path) -> tuple[Event, ...]:
    """All events in the order of their numbers."""
    events = (files.read_json(path, Event) for path in sorted(folder.glob("[0-9]*.json")))
    return tuple(event for event in events if event is not None)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def submissions(events: Iterable[Event]) -> dict[str, Submission]:
    """Stage → its newest submission. Pure."""
    newest: dict[str, Submission] = {}
    asked = True
    for event in events:
        if event.kind == "resumed" and event.stage is None:
            asked = event.asked
        if event.stage is None or event.token is None:
            continue
        current = newest.get(event.stage)
        if event.kind == "intent":
            again = current is not None and not (event.asked and asked)
            tokens: tuple[str, ...] = ()
            before: dict[str, FailureClass] = {}
            if again and current is not None:
                tokens, before = current.tokens, dict(current.before)
                if current.failure is not None:
                    before[current.token] = current.failure
            newest[event.stage] = Submission(
                event.stage,
                event.token,
                job_id=None,
                rung=event.rung,
                time=event.time,
                host=event.host,
                pid=event.pid,
                tokens=(*tokens, event.token),
                before=before,
            )
        elif current is not None and current.token == event.token:
            newest[event.stage] = _after(current, event)
    return newest


def _after(current: Submission, event: Event) -> Submission:
    reason = event.detail or ""
    if event.kind == "submitted":
        return replace(current, job_id=event.job_id)
    if event.kind == "refused":
        return replace(current, refused=True, reason=reason)
    if event.kind == "cancelled":
        return replace(current, cancelled=True, dropped=False, reason=reason)
    if event.kind == "dropped":
        return replace(current, cancelled=True, dropped=True, reason=reason)
    if event.kind == "failed":
        return replace(current, cancelled=True, failure=event.failure, reason=reason)
    if event.kind == "released":
        return replace(current, released=current.released + 1)
    return current


def run_cancelled(events: Iterable[Event]) -> bool:
    """Whether the whole run was cancelled, and nobody resumed it since. Pure."""
    kinds = [e.kind for e in events if e.stage is None and e.kind in ("cancelled", "resumed")]
    return kinds[-1:] == ["cancelled"]


def anew(events: Iterable[Event]) -> dict[str, int]:
    """The stages that are to be run again and whose files are not aside yet, each with the number
    of the event that said so first. Pure."""
    return _again_until("cleared", events)


def rerun(events: Iterable[Event]) -> frozenset[str]:
    """The stages that are to be run again and were not submitted since. Pure."""
    return frozenset(_again_until("intent", events))


def _again_until(kind: Kind, events: Iterable[Event]) -> dict[str, int]:
    """The stages that are to be run again and had no event of `kind` since, each with the number
    of the first event that said so."""
    waiting: dict[str, int] = {}
    for event in events:
        if event.stage is not None and event.kind == "again":
            waiting.setdefault(event.stage, event.number)
        elif event.stage is not None and event.kind == kind:
            waiting.pop(event.stage, None)
    return waiting


def known_tokens(events: Iterable[Event]) -> frozenset[tuple[str, str]]:
    """Stage and token of every submission there ever was. Pure."""
    return frozenset(
        (e.stage, e.token) for e in events if e.kind == "intent" and e.stage and e.token
    )
