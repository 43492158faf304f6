"""The journal of a run: one numbered file an event, never changed, numbers claimed one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from launcher.records import files

Kind = Literal["created", "intent", "submitted", "cancelled", "resumed", "accepted"]
"""`cancelled` and `resumed` without a stage are the whole run's; so is `accepted`: what a stage is
made from may differ from what it began with."""


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
    number: int = 0


@dataclass(frozen=True)
class Submission:
    """The newest submission of a stage, folded from its events."""

    stage: str
    token: str
    job_id: str | None
    """None: the intent was written, and nobody recorded what came of it."""
    cancelled: bool = False


def append(folder: Path, event: Event) -> Event:
    """Write `event` under the next free number. Returns it with that number."""
    files.private_folder(folder)
    number = max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0) + 1
    while True:
        numbered = replace(event, number=number)
        if files.claim(folder / f"{number:06d}.json", files.encode(numbered)):
            return numbered
        number += 1


def read(folder: Path) -> tuple[Event, ...]:
    """All events in the order of their numbers."""
    events = (files.read_json(path, Event) for path in sorted(folder.glob("[0-9]*.json")))
    return tuple(event for event in events if event is not None)


def submissions(events: Iterable[Event]) -> dict[str, Submission]:
    """Stage → its newest submission. Pure."""
    newest: dict[str, Submission] = {}
    for event in events:
        if event.stage is None or event.token is None:
            continue
        current = newest.get(event.stage)
        if event.kind == "intent":
            newest[event.stage] = Submission(event.stage, event.token, job_id=None)
        elif current is not None and current.token == event.token:
            if event.kind == "submitted":
                newest[event.stage] = replace(current, job_id=event.job_id)
            elif event.kind == "cancelled":
                newest[event.stage] = replace(current, cancelled=True)
    return newest
