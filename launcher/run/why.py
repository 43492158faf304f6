"""Why each stage of a run stands as it does, and what comes next, in words. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.plan.types import Plan, StagePlan
from launcher.records import attempts, complete, journal
from launcher.records.attempts import Attempt
from launcher.records.failures import Answer, FailureClass
from launcher.records.paths import RunPaths
from launcher.run import checkpoints, inputs
from launcher.run.moves import RELEASES
from launcher.run.state import RunState, StageState

TRACEBACK_LINES = 12


@dataclass(frozen=True)
class Tried:
    """One attempt, as its receipt tells of it."""

    number: int
    job_id: str
    rung: int
    began_at: int
    """Optimizer step of the checkpoint that it went on from."""
    reached: int
    """Of the newest checkpoint that it left."""
    outcome: str
    failed: FailureClass | None
    answer: Answer | None
    message: str
    """The first that went wrong."""


@dataclass(frozen=True)
class Reason:
    stage: str
    state: str
    why: str
    """One clause."""
    next: str
    """What will be done, or is to be; empty: nothing is left to do."""
    command: str
    """What does it; empty: it happens by itself."""
    attempts: tuple[Tried, ...]
    traceback: tuple[str, ...]
    """The first lines of the last attempt's, where that has failed."""


def reasons(run: RunPaths, plan: Plan, now: RunState) -> tuple[Reason, ...]:
    """One for each stage, in run order."""
    events = journal.read(run.journal)
    known = journal.submissions(events)
    found = []
    for stage in now.stages:
        receipts = attempts.read(run.stage(stage.name).attempts)
        failure = receipts[-1].failure if receipts and stage.state == "failed" else None
        moves = _moved(run, plan, stage) if stage.state != "given" else ()
        why = _why(run, plan, stage, now, events)
        words, command = _next(now.run, stage, known.get(stage.name))
        found.append(
            Reason(
                stage=stage.name,
                state=stage.state,
                why=f"{why}; since then {'; '.join(moves)}" if moves else why,
                next=words,
                command=command,
                attempts=tuple(_tried(each, stage, last=each is receipts[-1]) for each in receipts),
                traceback=_head(failure.traceback) if failure is not None else (),
            )
        )
    return tuple(found)


def _moved(run: RunPaths, plan: Plan, stage: StageState) -> tuple[str, ...]:
    """What keeps the stage from going on, or counting as done, as it is."""
    moves = inputs.stale(run, plan, stage.name)
    over = stage.state in ("failed", "cancelled", "blocked") and not stage.queued
    unfit = checkpoints.unfit(run, plan, stage.name, stage.rung) if over else None
    return moves if unfit is None else (*moves, unfit)


def _why(
    run: RunPaths, plan: Plan, stage: StageState, now: RunState, events: tuple[journal.Event, ...]
) -> str:
    if stage.state == "given":
        return f"skipped: {stage.reason} stands in for it"
    if stage.state == "complete":
        return _complete(run, plan.stage(stage.name))
    if stage.state == "failed":
        return f"failed by {stage.failed}: {stage.reason}"
    if stage.state == "cancelled":
        return "a user cancelled it" + (f" ({stage.reason})" if stage.reason else "")
    again = [e for e in events if e.stage == stage.name and e.kind == "again"]
    if stage.state == "absent" and again:
        return f"is to be run again: {again[-1].detail}"
    states = {s.name: s.state for s in now.stages}
    needs = plan.stage(stage.name).stage.needs
    open_ = [name for name in needs if states[name] not in ("given", "complete")]
    if stage.state in ("pending", "absent") and open_:
        return f"waits for {' and '.join(open_)}"
    words = {"pending": "waits", "absent": "is not submitted", "running": "runs"}
    said = words.get(stage.state, "")
    return ": ".join(part for part in (said, stage.reason) if part) or stage.state


def _complete(run: RunPaths, planned: StagePlan) -> str:
    paths = run.stage(planned.name)
    done = complete.read(paths)
    if done is None:
        return "complete"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.finished))
    roles: Mapping[str, str] = {**planned.stage.models, **planned.stage.candidates}
    own = [f"{role} {name}" for role, name in roles.items() if not name.startswith("stage:")]
    built = [f"stage {name} ({digest[:8]})" for name, digest in done.upstream.items()]
    data = planned.stage.data
    rows = [f"data {data.path}"] if data is not None else []
    parts = [*own, *built, *rows]
    return f"complete since {since}" + (f", from {', '.join(parts)}" if parts else "")


def _next(run: str, stage: StageState, known: journal.Submission | None) -> tuple[str, str]:
    """What comes next, and the command for it."""
    advance, resume = f"launcher advance {run}", f"launcher resume {run}"
    if stage.state == "failed":
        if stage.answer == "end":
            return _mend(stage.failed), resume
        if stage.answer == "rung":
            return f"submitted again on rung {stage.rung} of its ladder", advance
        return "submitted again", advance
    if stage.held:
        often = known.released if known is not None else 0
        if often >= RELEASES:
            return "given up: Slurm holds it time after time", advance
        return f"released (for the {often + 1}. time of {RELEASES})", advance
    if stage.state == "cancelled":
        return "submitted again once somebody resumes", resume
    if stage.state == "blocked":
        if stage.queued:
            return "taken out of the queue, or put behind a new job of what it waits for", advance
        return "submitted again with what it waits for", resume
    if stage.state == "absent":
        return "submitted", advance
    if stage.state == "unknown":
        return "known once Slurm answers", f"launcher status {run}"
    return "", ""


def _mend(failed: FailureClass | None) -> str:
    what = {
        "user": "correct what the message names",
        "changed": "put back what changed, or accept it (--accept-change)",
        "no progress": "find out what ends it before its next checkpoint",
        "nan": "lower the learning rate, or look at the data, in a recipe of its own",
        "out of memory": "use larger GPUs or shorter rows, in a recipe of its own",
        "held": "ask why Slurm cannot start it",
    }
    return f"nothing by itself: {what.get(failed or '', 'mend its cause')}, then resume"


def _tried(receipt: Attempt, stage: StageState, *, last: bool) -> Tried:
    runs = last and stage.state == "running" and stage.ended is None
    return Tried(
        number=receipt.number,
        job_id=receipt.job_id,
        rung=receipt.rung,
        began_at=receipt.began_at,
        reached=receipt.reached,
        outcome=receipt.outcome or ("runs" if runs else "died without a word"),
        failed=receipt.failed,
        answer=receipt.answer,
        message=receipt.failure.message if receipt.failure is not None else "",
    )


def _head(traceback: str) -> tuple[str, ...]:
    lines = traceback.rstrip().splitlines()
    if len(lines) <= TRACEBACK_LINES:
        return tuple(lines)
    half = TRACEBACK_LINES // 2
    return (*lines[:half], "  …", *lines[-half:])
