"""Staying with a run until it ends: progress bars on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from launcher.cli import output, results, state_text
from launcher.errors import SchedulerUnavailable, StageFailed
from launcher.plan.types import Plan
from launcher.records.paths import RunPaths
from launcher.run import act
from launcher.run.state import RunState

POLL_S = 1.0
# Each look at a chain on Slurm is an squeue.
SLURM_POLL_S = 3.0
# Without a terminal: how often a running stage says how far it is.
LINE_EVERY_S = 30.0


def announce(run: RunPaths, done: list[act.Done], *, as_json: bool, made: bool) -> None:
    """Say what a submission did."""
    if as_json:
        output.data("submitted", {"run": run.root.name, "folder": run.root, "stages": done})
        return
    output.text(run.root.name)
    if not made:
        output.note("the recipe has this run already; --new would make another")
    output.note(table(done))


def table(done: list[act.Done]) -> str:
    """What became of each stage."""
    rows = [(d.stage, d.action, d.job_id or "", d.reason) for d in done]
    return output.table(("stage", "", "job", ""), rows)


def wait(run: RunPaths, plan: Plan, *, quiet: bool = False, every: float = math.inf) -> None:
    """Return when the run is complete; print its results unless `quiet`.

    It is advanced where a stage failed for a reason that may pass, and each `every` seconds.
    Raises StageFailed when a stage failed for good, was cancelled, or cannot run any more.
    """
    eye = _Eye(run, plan, every)
    state = _bars(eye) if sys.stderr.isatty() else _lines(eye)
    if state.state == "complete":
        if not quiet:
            output.text(results.render(run, plan, state))
        return
    wrong = next(s for s in state.stages if s.state not in ("given", "complete"))
    raise StageFailed(
        f"stage {wrong.name} of {run.root.name}: {wrong.state}"
        + (f" ({wrong.failed})" if wrong.failed else "")
        + (f": {wrong.reason}" if wrong.reason else ""),
        hint=f"launcher logs {run.root.name} {wrong.name}",
    )


class _Eye:
    """Looks at a run time and again, and advances it where that is due."""

    def __init__(self, run: RunPaths, plan: Plan, every: float) -> None:
        self._run, self.plan, self._every = run, plan, every
        self.pause = POLL_S if plan.cluster.engine == "local" else SLURM_POLL_S
        """Seconds between two looks."""
        self._advanced = time.monotonic()
        self.over = False
        """Whether nothing of it runs, waits, or would be submitted again."""

    def look(self) -> RunState:
        state = act.look(self._run, self.plan)
        since = time.monotonic() - self._advanced
        # What Slurm holds after a failed start stays so until somebody releases it.
        passing = any(stage.passing or stage.held for stage in state.stages)
        if (passing and since >= self.pause) or since >= self._every:
            self._advanced = time.monotonic()
            try:
                act.advance(self._run, self.plan)
            except SchedulerUnavailable as error:
                output.note(f"note: {error.message}")
            state = act.look(self._run, self.plan)
            passing = False
        self.over = state.settled and not passing
        return state


def _lines(eye: _Eye) -> RunState:
    said: dict[str, tuple[str, str]] = {}
    spoke = 0.0
    while True:
        state = eye.look()
        due = time.monotonic() - spoke >= LINE_EVERY_S
        for stage in state.stages:
            phase = stage.progress.phase if stage.progress else ""
            news = (stage.state, phase)
            if said.get(stage.name) != news or (due and stage.state == "running"):
                said[stage.name] = news
                spoke = time.monotonic()
                note = state_text.note(stage)
                clock = time.strftime("%H:%M:%S")
                output.note(f"{clock}  {stage.name}: {stage.state}" + (f", {note}" if note else ""))
        if eye.over:
            return state
        time.sleep(eye.pause)


def _bars(eye: _Eye) -> RunState:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.fields[stage]}", markup=False),
        TextColumn("{task.fields[state]}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {
            stage.name: bars.add_task(
                "", start=False, total=None, stage=stage.name, state="", note=""
            )
            for stage in eye.plan.stages
        }
        while True:
            state = eye.look()
            for stage in state.stages:
                task = tasks[stage.name]
                progress = stage.progress
                if stage.state == "running" and not bars.tasks[task].started:
                    bars.start_task(task)
                ended = stage.state in ("complete", "given")
                bars.update(
                    task,
                    total=1 if ended else (progress.total if progress else None),
                    completed=1 if ended else (progress.step if progress else 0),
                    state=stage.state,
                    note=output.printable(state_text.note(stage)),
                )
                if ended:
                    bars.stop_task(task)
            if eye.over:
                return state
            time.sleep(eye.pause)
