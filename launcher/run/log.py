"""The logs of a run: which file a stage's task writes, and reading it as it grows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import act, folder

# Shared file systems send no events.
POLL_S = 0.5


def choose(runs: Path, words: Sequence[str]) -> tuple[RunPaths, str]:
    """The run and the stage that up to two words mean. Raises UsageError."""
    if len(words) > 2:
        raise UsageError("logs takes a run and a stage", hint="launcher logs [RUN] [STAGE]")
    if len(words) == 2:
        run = folder.find(runs, words[0])
        return run, _stage(run, words[1])
    newest = folder.find(runs, None)
    if words and words[0] in [stage.name for stage in folder.load_plan(newest).stages]:
        return newest, words[0]
    run = folder.find(runs, words[0]) if words else newest
    begun = [event.stage for event in journal.read(run.journal) if event.stage is not None]
    started = [name for name in begun if _files(run, name)]
    return run, (started or begun or [folder.load_plan(run).stages[0].name])[-1]


def _stage(run: RunPaths, name: str) -> str:
    names = [stage.name for stage in folder.load_plan(run).stages]
    if name not in names:
        raise UsageError(
            f"{run.root.name} has no stage {name}", hint=f"its stages: {', '.join(names)}"
        )
    return name


def _files(run: RunPaths, stage: str, rank: int = 0) -> list[Path]:
    """The logs of a stage's task, one a job, the oldest first."""
    found = run.stage(stage).logs.glob(f"*_{rank}_log.out")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def read(
    run: RunPaths, plan: Plan, stage: str, *, rank: int, tail: int | None, follow: bool
) -> Iterator[str]:
    """Lines of the newest log of the stage's task, without their ends.

    With `follow`, waits for the log to appear and for more of it, until the stage is settled.
    """
    while not (files := _files(run, stage, rank)):
        if not follow or _settled(run, plan, stage):
            raise UsageError(
                f"stage {stage} of {run.root.name} has no log of rank {rank} yet",
                hint="-f waits for it",
            )
        time.sleep(POLL_S)
    with files[-1].open(errors="replace") as handle:
        if tail is not None:
            yield from (line.rstrip("\n") for line in deque(handle, maxlen=tail))
        else:
            yield from (line.rstrip("\n") for line in handle)
        while follow:
            over = _settled(run, plan, stage)
            yield from (line.rstrip("\n") for line in handle)
            if over:
                return
            time.sleep(POLL_S)


def _settled(run: RunPaths, plan: Plan, stage: str) -> bool:
    states = {s.name: s.state for s in act.look(run, plan).stages}
    return states[stage] not in ("running", "pending", "unknown", "absent")
