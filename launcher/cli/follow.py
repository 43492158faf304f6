"""Staying with a run until it ends: progress bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from launcher.cli import output, results, state_text
from launcher.errors import StageFailed
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
    rows = [(d.stage, d.action, d.job_id or "") for d in done]
    output.note(output.table(("stage", "", "job"), rows))


def wait(run: RunPaths, plan: Plan, *, quiet: bool = False) -> None:
    """Return when the run is complete; print its results unless `quiet`.

    Raises StageFailed when a stage failed, was cancelled, or cannot run any more.
    """
    state = _bars(run, plan) if sys.stderr.isatty() else _lines(run, plan)
    if state.state == "complete":
        if not quiet:
            output.text(results.render(run, plan, state))
        return
    wrong = next(s for s in state.stages if s.state not in ("given", "complete"))
    raise StageFailed(
        f"stage {wrong.name} of {run.root.name}: {wrong.state}"
        + (f": {wrong.reason}" if wrong.reason else ""),
        hint=f"launcher logs {run.root.name} {wrong.name}",
    )


def _pause(plan: Plan) -> float:
    """Seconds between two looks."""
    return POLL_S if plan.cluster.engine == "local" else SLURM_POLL_S


def _lines(run: RunPaths, plan: Plan) -> RunState:
    said: dict[str, tuple[str, str]] = {}
    spoke = 0.0
    pause = _pause(plan)
    while True:
        state = act.look(run, plan)
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
        if state.settled:
            return state
        time.sleep(pause)


def _bars(run: RunPaths, plan: Plan) -> RunState:
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
            for stage in plan.stages
        }
        pause = _pause(plan)
        while True:
            state = act.look(run, plan)
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
            if state.settled:
                return state
            time.sleep(pause)
