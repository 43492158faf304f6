"""The logs of a run: which file a stage's task writes, and reading it as it grows."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import act, folder

# Shared file systems send no events.
POLL_S = 0.5
# How often Slurm is asked whether the stage goes on.
SLURM_S = 3.0


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

    With `follow`, waits for the log to appear and for more of it, until the stage is settled. A
    line that is still being written is yielded once it is whole, or nobody writes any more.
    """
    settled = _Settled(run, plan, stage)
    while not (files := _files(run, stage, rank)):
        if not follow or settled():
            raise UsageError(
                f"stage {stage} of {run.root.name} has no log of rank {rank} yet",
                hint="-f waits for it",
            )
        time.sleep(POLL_S)
    with files[-1].open("rb") as handle:
        lines = _Lines(handle)
        so_far = lines.more() if follow else chain(lines.more(), lines.rest())
        yield from so_far if tail is None else deque(so_far, maxlen=tail)
        while follow:
            over = settled()
            yield from lines.more()
            if over:
                yield from lines.rest()
                return
            time.sleep(POLL_S)


class _Lines:
    """A growing file by whole lines. A carriage return, of a progress bar, ends one too."""

    _END = re.compile(rb"\r?\n|\r(?=[^\n])")
    _CHUNK = 1 << 20

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._begun = b""

    def more(self) -> Iterator[str]:
        """The lines that are whole by now and were not before."""
        while chunk := self._handle.read(self._CHUNK):
            *whole, self._begun = self._END.split(self._begun + chunk)
            yield from (line.decode(errors="replace") for line in whole)

    def rest(self) -> Iterator[str]:
        """The last line, where it has no end."""
        if self._begun:
            yield self._begun.decode(errors="replace")


class _Settled:
    """Whether the stage has come to its end. Slurm is not asked at every poll of a file."""

    def __init__(self, run: RunPaths, plan: Plan, stage: str) -> None:
        self._run, self._plan, self._stage = run, plan, stage
        self._every = 0.0 if plan.cluster.engine == "local" else SLURM_S
        self._asked = -math.inf

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked < self._every:
            return False
        self._asked = now
        states = {s.name: s.state for s in act.look(self._run, self._plan).stages}
        return states[self._stage] not in ("running", "pending", "unknown", "absent")
