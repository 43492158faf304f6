"""How a run stands: a pure fold of what its folder says and what the scheduler says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from launcher.plan.types import Plan, StagePlan
from launcher.records import attempts, checkpoints, complete, journal, progress
from launcher.records.failures import Answer, FailureClass, first_rung
from launcher.records.paths import RunPaths
from launcher.run import diagnose
from launcher.scheduler.jobs import QueuedJob, tag

State = Literal[
    "given", "complete", "running", "pending", "blocked", "failed", "cancelled", "absent", "unknown"
]
"""`given`: a finished model stands in for the stage. `blocked`: waits for what cannot happen any
more, or was taken out of the queue for that. `absent`: not submitted. `unknown`: the scheduler does
not answer."""

ENDED: frozenset[State] = frozenset({"given", "complete", "failed", "cancelled", "blocked"})


@dataclass(frozen=True)
class View:
    """What the scheduler says now."""

    queue: Mapping[str, QueuedJob] | None
    """Jobs by tag; None: it does not answer."""
    chain_alive: bool | None = None
    """Without Slurm: whether the process that runs the chain lives. None: there is a Slurm."""


@dataclass(frozen=True)
class StageState:
    name: str
    method: str
    state: State
    reason: str = ""
    """Why it waits, failed or was left out, in words."""
    job_id: str | None = None
    starts: str = ""
    """When a pending job is expected to start, as the scheduler writes it."""
    attempts: int = 0
    started: float | None = None
    """Start of the last attempt (seconds since the epoch)."""
    ended: float | None = None
    progress: progress.Progress | None = None
    peak_bytes: Mapping[str, int] | None = None
    metrics: Mapping[str, float] | None = None
    ending: bool = False
    """It is over for the stage, and its job has not ended yet."""
    queued: bool = False
    """Its job is in the queue, or runs."""
    held: bool = False
    """Slurm holds the job after a start that failed."""
    failed: FailureClass | None = None
    """Why it did not finish."""
    answer: Answer | None = None
    """What comes of that: `end`, or what the next command that acts does."""
    rung: int = 0
    """Of the plan's ladder, that its next or present attempt is on."""

    @property
    def passing(self) -> bool:
        """Whether it has failed, and the next command that acts tries it again."""
        return self.state == "failed" and self.answer != "end"


@dataclass(frozen=True)
class RunState:
    run: str
    stages: tuple[StageState, ...]
    left: bool = False
    """Nothing acts on it: what is absent stays so until the next `submit` or `resume`."""

    @property
    def state(self) -> State:
        """The run in one word: the first of these that any stage is in."""
        states = {stage.state for stage in self.stages}
        order: tuple[State, ...] = (
            "failed", "running", "unknown", "cancelled", "pending", "blocked", "absent",
        )  # fmt: skip
        for state in order:
            if state in states:
                return state
        return "complete"

    @property
    def settled(self) -> bool:
        """Whether nothing of it runs, waits or is unknown."""
        absent_is_final = self.left or any(s.state in ("failed", "cancelled") for s in self.stages)
        return all(s.state in ENDED or (s.state == "absent" and absent_is_final)
                   for s in self.stages)  # fmt: skip


@dataclass(frozen=True)
class StageRecords:
    """What the folder of one stage holds."""

    complete: complete.Complete | None
    attempts: tuple[attempts.Attempt, ...]
    progress: progress.Progress | None
    reached: int = 0
    """Optimizer step of the newest committed checkpoint."""


def read(
    run: RunPaths, plan: Plan, view: View, events: tuple[journal.Event, ...] | None = None
) -> RunState:
    """The state of the run, from its files and the scheduler's view.

    `events`: its journal, where that was read already.
    """
    records = {
        stage.name: StageRecords(
            complete=complete.read(run.stage(stage.name)),
            attempts=attempts.read(run.stage(stage.name).attempts),
            progress=progress.read(run.stage(stage.name)),
            reached=checkpoints.newest_step(run.stage(stage.name).checkpoints),
        )
        for stage in plan.stages
    }
    events = events if events is not None else journal.read(run.journal)
    return fold(run.root.name, plan, events, records, view)


def fold(
    run_id: str,
    plan: Plan,
    events: tuple[journal.Event, ...],
    records: Mapping[str, StageRecords],
    view: View,
) -> RunState:
    """Pure: the same words give the same state."""
    submissions = journal.submissions(events)
    cancelled = journal.run_cancelled(events)
    whole = [e for e in events if e.stage is None]
    resumed = max((e.number for e in whole if e.kind == "resumed"), default=0)
    submitted_since = {e.stage for e in events if e.kind == "intent" and e.number > resumed}
    anew, rerun = journal.anew(events), journal.rerun(events)
    states: dict[str, StageState] = {}
    for planned in plan.stages:
        submission = submissions.get(planned.name)
        known = records[planned.name]
        if planned.name in anew:
            known = replace(known, complete=None)
        state = _stage(run_id, planned, submission, known, view)
        if planned.name in rerun and not state.queued and state.state not in ("given", "complete"):
            # Its receipts go aside, and with them what they say of memory.
            state = replace(_with(state, "absent", "is to be run again"), rung=0)
        left = state.state in ("failed", "cancelled") and planned.name not in submitted_since
        if view.chain_alive and (state.state == "absent" or left):
            # The chain without Slurm has gone on and comes to this stage yet.
            state = _with(state, "pending", "waits for the stage before it")
        elif cancelled and (state.state == "absent" or state.passing):
            # Nothing is to come of it any more, unless somebody resumes the run.
            state = _with(state, "cancelled", state.reason if state.failed else "")
        elif state.state == "absent" and view.chain_alive is False and not state.reason:
            state = _with(state, "absent", "nothing runs the chain")
        failed = [n for n in planned.stage.needs if states[n].state in ("failed", "blocked")]
        if failed and state.state == "pending":
            state = _with(state, "blocked", f"stage {failed[0]} did not finish")
        states[planned.name] = state
    return RunState(run_id, tuple(states.values()), left=view.chain_alive is False)


def _with(state: StageState, word: State, reason: str) -> StageState:
    return replace(state, state=word, reason=reason)


def _stage(
    run_id: str,
    planned: StagePlan,
    submission: journal.Submission | None,
    records: StageRecords,
    view: View,
) -> StageState:
    last = records.attempts[-1] if records.attempts else None
    known = StageState(
        name=planned.name,
        method=planned.stage.method,
        state="absent",
        job_id=submission.job_id if submission else None,
        # Memory that did not do once will not do later, whatever became of the job since.
        rung=max(submission.rung if submission else 0, first_rung(records.attempts)),
        attempts=len(records.attempts),
        started=last.started if last else None,
        ended=last.ended if last else None,
        peak_bytes=last.peak_bytes if last else None,
    )
    if planned.stage.use is not None:
        return _with(known, "given", planned.stage.use)
    if records.complete is not None:
        done = records.complete
        return replace(
            known,
            state="complete",
            ended=done.finished,
            peak_bytes=done.peak_bytes,
            metrics=done.metrics,
        )
    if submission is None:
        return known
    job = (view.queue or {}).get(tag(run_id, planned.name, submission.token))
    current = diagnose.last_of(submission.token, records.attempts)
    if submission.failure is not None:
        return _failed(replace(known, reason=submission.reason), planned, submission, records, job)
    if submission.cancelled:
        ending = job is not None and job.state == "running"
        word: State = "blocked" if submission.dropped else "cancelled"
        reason = "its job is ending" if ending else submission.reason
        return replace(_with(known, word, reason), ending=ending)
    if view.queue is None:
        return _with(known, "unknown", "Slurm does not answer")
    if job is not None and job.state in ("pending", "blocked", "running"):
        now = records.progress
        if job.state != "running" or (now is not None and now.token != submission.token):
            # What is there is how far the submission before this one came.
            now = None
        return replace(
            known,
            state=job.state,
            reason=job.reason,
            job_id=job.job_id,
            starts=job.starts if job.state == "pending" else "",
            progress=now,
            queued=True,
            held=job.held,
            rung=submission.rung,
        )
    if submission.refused:
        return _with(known, "absent", submission.reason)
    if submission.job_id is None and job is None:
        return _with(known, "absent", "its submission was interrupted")
    if job is not None and job.state == "cancelled":
        return _with(known, "cancelled", job.reason)
    return _failed(replace(known, reason=_why(current, job)), planned, submission, records, job)


def _failed(
    known: StageState,
    planned: StagePlan,
    submission: journal.Submission,
    records: StageRecords,
    job: QueuedJob | None,
) -> StageState:
    failure = diagnose.failure(submission, records.attempts, job)
    decision = diagnose.answer(
        submission,
        records.attempts,
        failure,
        rungs=len(planned.ladder),
        reached=records.reached,
    )
    return replace(
        known,
        state="failed",
        failed=decision.failure,
        answer=decision.answer,
        rung=max(known.rung, decision.rung),
        ending=job is not None and job.alive,
    )


def _why(attempt: attempts.Attempt | None, job: QueuedJob | None) -> str:
    """Why a job that is over left no COMPLETE, from its receipt first and Slurm's word second."""
    if attempt is not None and attempt.failure is not None:
        return attempt.failure.message
    said = f"{job.word}: {job.reason}".rstrip(": ") if job is not None else ""
    if attempt is None:
        return said or "the job is gone and left no receipt"
    if attempt.outcome is None:
        return said or "it died without a word"
    if attempt.exit_code is not None and attempt.exit_code > 128:
        return said or f"its trainer was killed by signal {attempt.exit_code - 128}"
    return said or f"{attempt.outcome} with exit code {attempt.exit_code}"
