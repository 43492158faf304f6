"""The commands that act on a run: submit (or go on with) its chain, cancel it.

Intent is journaled before each sbatch and the id after it, so the same command after a crash finds
either a job to adopt or nothing to lose.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from launcher.errors import LauncherError, SchedulerUnavailable, UsageError
from launcher.plan.types import Plan
from launcher.records import files, journal
from launcher.records.paths import RunPaths
from launcher.run import local_chain, state
from launcher.run.request import job_request
from launcher.scheduler import shell
from launcher.scheduler.jobs import Engine, JobRequest

Action = Literal["given", "complete", "queued", "adopted", "rewired", "submitted", "started"]

# How long a chain that was just started may take to say that it lives.
START_S = 20
# How long a chain on this machine may take to end, a checkpoint included.
CANCEL_S = 60


@dataclass(frozen=True)
class Done:
    """What became of one stage."""

    stage: str
    action: Action
    job_id: str | None = None


def engine(plan: Plan) -> Engine | None:
    """The scheduler of the plan's cluster; None: this machine."""
    if plan.cluster.engine == "local":
        return None
    from launcher.scheduler.slurm import SlurmEngine

    return SlurmEngine()


def look(run: RunPaths, plan: Plan) -> state.RunState:
    """How the run stands, in one query of the scheduler. It changes nothing."""
    return state.read(run, plan, view(run, plan))


def view(run: RunPaths, plan: Plan) -> state.View:
    """What the scheduler says; a silent one is a view too."""
    scheduler = engine(plan)
    if scheduler is None:
        return _local_view(run)
    try:
        return state.View(queue=scheduler.queue())
    except SchedulerUnavailable:
        return state.View(queue=None)


def _local_view(run: RunPaths) -> state.View:
    from launcher.scheduler.jobs import QueuedJob, tag

    if local_chain.holder(run) is None:
        return state.View(queue={}, chain_alive=False)
    # The chain runs one stage at a time: the one that it announced last.
    intents: list[journal.Event] = []
    for event in journal.read(run.journal):
        if event.kind == "resumed":
            intents = []
        elif event.kind == "intent":
            intents.append(event)
    if not intents or intents[-1].stage is None or intents[-1].token is None:
        return state.View(queue={}, chain_alive=True)
    key = tag(run.root.name, intents[-1].stage, intents[-1].token)
    job = QueuedJob(job_id="local", tag=key, state="running", word="RUNNING")
    return state.View(queue={key: job}, chain_alive=True)


def submit(run: RunPaths, plan: Plan, *, resume: bool = False) -> list[Done]:
    """Bring every stage that is not done into the queue, each once.

    A stage that is queued already is left there, one whose submission was interrupted is adopted,
    one that failed is submitted again and the jobs that waited for it wait for the new one.
    Raises UsageError for a cancelled run unless `resume`; SchedulerUnavailable where Slurm is
    silent, before anything is submitted or between two stages: the same command goes on.
    """
    with _only_one(run):
        now = look(run, plan)
        cancelled = [s.name for s in now.stages if s.state == "cancelled"]
        if cancelled and not resume:
            raise UsageError(
                f"stage {cancelled[0]} of {run.root.name} was cancelled",
                hint=f"launcher resume {run.root.name} goes on with it; --new makes another run",
            )
        if plan.cluster.engine == "local":
            return _submit_local(run, plan, now)
        return _submit_slurm(run, plan, now)


def _submit_slurm(run: RunPaths, plan: Plan, now: state.RunState) -> list[Done]:
    scheduler = engine(plan)
    assert scheduler is not None
    if any(stage.state == "unknown" for stage in now.stages):
        raise SchedulerUnavailable("Slurm does not answer", hint="try the same command again")
    known = journal.submissions(journal.read(run.journal))
    jobs: dict[str, str] = {}
    moved: set[str] = set()
    done: list[Done] = []
    for stage in now.stages:
        needs = plan.stage(stage.name).stage.needs
        waits_for = tuple(jobs[name] for name in needs if name in jobs)
        action: Action
        if stage.state == "given":
            action = "given"
        elif stage.state == "complete":
            action = "complete"
        elif stage.state in ("pending", "blocked", "running"):
            assert stage.job_id is not None
            jobs[stage.name] = stage.job_id
            action = "queued"
            if known[stage.name].job_id is None:
                _note(run, "submitted", stage.name, known[stage.name].token, stage.job_id)
                action = "adopted"
            if moved & set(needs):
                scheduler.depend(stage.job_id, waits_for)
                action = "rewired"
        else:
            # A cancelled job may still be writing its checkpoint where the new one will.
            ending = (stage.job_id,) if stage.ending and stage.job_id else ()
            request = partial(job_request, run, plan, dependencies=waits_for, after=ending)
            jobs[stage.name] = _send(run, scheduler, stage.name, request)
            moved.add(stage.name)
            action = "submitted"
        done.append(Done(stage.name, action, jobs.get(stage.name)))
    return done


def _send(
    run: RunPaths, scheduler: Engine, stage: str, request: Callable[[str, str], JobRequest]
) -> str:
    token = uuid.uuid4().hex
    files.private_folder(run.stage(stage).logs)
    _note(run, "intent", stage, token, None)
    job_id = scheduler.submit(request(stage, token))
    _note(run, "submitted", stage, token, job_id)
    return job_id


def _note(run: RunPaths, kind: journal.Kind, stage: str, token: str, job_id: str | None) -> None:
    journal.append(run.journal, journal.Event(kind, time.time(), stage, token, job_id))


def _submit_local(run: RunPaths, plan: Plan, now: state.RunState) -> list[Done]:
    running = local_chain.holder(run) is not None
    waiting = [s for s in now.stages if s.state not in ("given", "complete")]
    if waiting and not running:
        env = {**os.environ, "PYTHONPATH": str(run.code)}
        argv = [sys.executable, "-m", "launcher.run.local_chain", str(run.root)]
        resumed = journal.append(run.journal, journal.Event("resumed", time.time()))
        chain = shell.detach(argv, run.local_log, env)
        deadline = time.monotonic() + START_S
        while local_chain.holder(run) is None:
            ended = chain.poll() is not None
            if ended and journal.read(run.journal)[-1].number > resumed.number:
                break
            if ended or time.monotonic() > deadline:
                raise LauncherError("the chain did not start", hint=f"see {run.local_log}")
            time.sleep(0.05)
    done: list[Done] = []
    for stage in now.stages:
        if stage.state == "given":
            done.append(Done(stage.name, "given"))
        elif stage.state == "complete":
            done.append(Done(stage.name, "complete"))
        else:
            done.append(Done(stage.name, "queued" if running else "started"))
    return done


def cancel(run: RunPaths, plan: Plan) -> list[str]:
    """End what runs and take what waits out of the queue. Returns the names of those stages.

    The journal says it first, so that a job which starts in this moment refuses to train. Only
    jobs with this run's own tag are touched. Raises SchedulerUnavailable.
    """
    with _only_one(run):
        if plan.cluster.engine == "local":
            return _cancel_local(run, plan)
        scheduler = engine(plan)
        assert scheduler is not None
        queue = scheduler.queue()
        now = state.read(run, plan, state.View(queue=queue))
        known = journal.submissions(journal.read(run.journal))
        active = [s for s in now.stages if s.state in ("pending", "blocked", "running")]
        for stage in active:
            _note(run, "cancelled", stage.name, known[stage.name].token, stage.job_id)
        scheduler.cancel([s.job_id for s in active if s.job_id is not None])
        return [stage.name for stage in active]


def _cancel_local(run: RunPaths, plan: Plan) -> list[str]:
    pid = local_chain.holder(run)
    if pid is None:
        return []
    active = [s.name for s in look(run, plan).stages if s.state in ("pending", "running")]
    journal.append(run.journal, journal.Event("cancelled", time.time()))
    deadline = time.monotonic() + CANCEL_S
    while local_chain.holder(run) == pid:
        # What a chain that does not end leaves behind ends by itself.
        late = time.monotonic() > deadline
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.1)
    # Now that nothing is submitted any more: which stage it was that the chain had begun.
    known = journal.submissions(journal.read(run.journal))
    for stage in look(run, plan).stages:
        if stage.name in active and stage.name in known and stage.state != "complete":
            _note(run, "cancelled", stage.name, known[stage.name].token, stage.job_id)
    return active


@contextmanager
def _only_one(run: RunPaths) -> Iterator[None]:
    """One acting command a run at a time; a lock that its holder's death gives back."""
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, files.PRIVATE_FILE)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
