"""Where plans learn from: the receipts of one's own runs, and the site's ledger.

Both are read at every plan, so both are limited: the newest `OWN_ATTEMPTS` attempts of one's newest
`OWN_RUNS` runs, and of the ledger what `launcher.records.ledger` reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from launcher.plan.evidence import Evidence, Observation, merge, received
from launcher.plan.observe import observe
from launcher.plan.types import Plan
from launcher.records import attempts, ledger
from launcher.records.paths import RunPaths

OWN_ATTEMPTS = 200
OWN_RUNS = 200


def gather(runs: Path, shared: str | None) -> Evidence:
    """What is known from the runs below `runs` and the ledger at `shared` (a folder, or None).

    What cannot be read is left out: no plan fails for want of evidence.
    """
    return merge(own(runs), _shared(Path(shared)) if shared is not None else ())


def own(runs: Path, limit: int = OWN_ATTEMPTS) -> Iterator[Observation]:
    """The observations of the newest attempts, the newest runs first."""
    for run in _newest(runs)[:OWN_RUNS]:
        try:
            # Unlike a plan that somebody hands in: this one only says what was estimated.
            plan = msgspec.json.decode(run.plan.read_bytes(), type=Plan)
        except (OSError, msgspec.DecodeError):
            continue
        for planned in plan.stages:
            for attempt in reversed(_receipts(run.stage(planned.name).attempts)):
                if limit == 0:
                    return
                limit -= 1
                found = observe(plan, planned, attempt)
                if found is not None:
                    yield found


def share(runs: Path, shared: Path) -> tuple[int, int]:
    """Add one's own observations to the ledger. Returns how many are new, and how many there are.

    Raises OSError where the ledger cannot be written to.
    """
    found = list(own(runs))
    new = sum(ledger.add(shared, each.when, each.run, each) for each in found)
    return new, len(found)


def _shared(folder: Path) -> Iterator[Observation]:
    now, me = time.time(), os.getuid()
    for user, said in ledger.read(folder, Observation):
        found = received(said, None if user == me else user, now)
        if found is not None:
            yield found


def _newest(runs: Path) -> list[RunPaths]:
    """One's own runs, the newest first."""
    found = []
    try:
        entries = list(os.scandir(runs))
    except OSError:
        return []
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        status = entry.stat(follow_symlinks=False)
        if status.st_uid == os.getuid():
            found.append((-status.st_mtime, entry.path))
    return [RunPaths(Path(path)) for _, path in sorted(found)]


def _receipts(folder: Path) -> tuple[attempts.Attempt, ...]:
    try:
        return attempts.read(folder)
    except (OSError, msgspec.DecodeError):
        return ()
