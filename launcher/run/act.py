"""The commands that act on a run: submit (or go on with) its chain, advance it, cancel it."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from launcher.errors import LauncherError, SchedulerUnavailable, UsageError
from launcher.plan.types import Plan
from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import again, checkpoints, inputs, local_chain, state
from launcher.run.chain import PATIENCE_S, POLL_S, Done, Wish, bring
from launcher.run.lock import only_one
from launcher.run.look import engine, look, view
from launcher.scheduler import shell
from launcher.scheduler.jobs import Engine, tag

__all__ = ["Done", "advance", "cancel", "engine", "look", "resume", "submit", "verify", "view"]

# How long a chain that was just started may take to say that it lives.
START_S = 20
# How long a chain on this machine may take to end, a checkpoint included.
CANCEL_S = 60
# A controller that is killed forgets the jobs that it accepted in the last five seconds.
KEPT_S = 6
VERIFICATIONS = 5


def resume(
    run: RunPaths, plan: Plan, *, first: str | None = None, accept_change: bool = False
) -> list[Done]:
    """Go on with a run, a cancelled one too.

    With `first`, that stage and all after it are run again though they may be complete; what they
    had left goes aside. With `accept_change`, what changed since an earlier attempt is meant so.
    Raises like `submit`, and UsageError where a stage that is to be run again runs now.
    """
    with only_one(run):
        if first is not None:
            now = look(run, plan)
            if any(stage.state == "unknown" for stage in now.stages):
                raise SchedulerUnavailable("Slurm does not answer")
            again.announce(run, plan, now, first)
        if accept_change:
            journal.append(run.journal, journal.Event("accepted", time.time()))
        return _bring(run, plan, Wish(resume=True))


def submit(run: RunPaths, plan: Plan) -> list[Done]:
    """Bring every stage that is not done into the queue, each once.

    A stage that is queued already is left there, one whose submission was interrupted is adopted,
    one that failed is submitted again and the jobs that waited for it wait for the new one.
    Raises UsageError for a cancelled run, and where a stage cannot go on from its checkpoints;
    SchedulerUnavailable where Slurm is silent, before anything is submitted or between two stages:
    the same command goes on.
    """
    with only_one(run):
        return _bring(run, plan, Wish())


def verify(run: RunPaths, plan: Plan, done: list[Done]) -> list[Done]:
    """Return once the controller has surely kept the jobs of `done`; what it lost is sent again.

    Raises LauncherError where it loses them again and again.
    """
    if plan.cluster.engine == "local":
        return done
    for _ in range(VERIFICATIONS):
        if not any(each.action in ("submitted", "adopted") for each in done):
            return done
        time.sleep(KEPT_S)
        before = {each.stage: each for each in done}
        now = advance(run, plan)
        done = [_since(before[each.stage], each) for each in now]
        if not any(each.action == "submitted" for each in now):
            return done
    raise LauncherError("Slurm loses the jobs that it accepts", hint="ask who runs the controller")


def _since(before: Done, now: Done) -> Done:
    """What became of a stage in both, with its newest job: the run's own jobs, too, send again what
    the controller lost."""
    if now.action == "submitted":
        return now
    return replace(before, job_id=now.job_id or before.job_id)


def advance(
    run: RunPaths, plan: Plan, *, ended: str | None = None, restarts: int = 0
) -> list[Done]:
    """Bring the run forward as far as its failures allow without a person.

    What failed for a reason that may pass is submitted again, within its bounds; what a killed
    command left out of the queue is put there; what waits for a stage that ended for good is taken
    out, with the reason. `ended`: the id of the job that asks at its end, which `restarts` tells
    from later starts of the same job. Raises SchedulerUnavailable, and UsageError where a stage
    cannot go on from its checkpoints.
    """
    with only_one(run):
        return _bring(run, plan, Wish(person=False, ended=ended, restarts=restarts))


def _bring(run: RunPaths, plan: Plan, wish: Wish) -> list[Done]:
    scheduler = engine(plan)
    if scheduler is None:
        return _start(run, plan, wish)
    if wish.resume and journal.run_cancelled(journal.read(run.journal)):
        journal.append(run.journal, journal.Event("resumed", time.time()))
    return bring(run, plan, scheduler, wish)


def _start(run: RunPaths, plan: Plan, wish: Wish) -> list[Done]:
    """Without Slurm: have the process of the chain run, where something is left to do."""
    now = look(run, plan)
    cancelled = [s.name for s in now.stages if s.state == "cancelled"]
    if cancelled and wish.person and not wish.resume:
        raise UsageError(
            f"stage {cancelled[0]} of {run.root.name} was cancelled",
            hint=f"launcher resume {run.root.name} goes on with it; --new makes another run",
        )
    running = local_chain.holder(run) is not None
    if not running and again.clear(run, journal.read(run.journal)):
        now = look(run, plan)
    waiting = [s for s in now.stages if s.state not in ("given", "complete")]
    final = [s for s in waiting if s.state == "cancelled" or s.answer == "end"]
    starts = bool(waiting) and not running and (wish.person or not final)
    if starts:
        if wish.person:
            inputs.refuse_changes(run, plan)
        checkpoints.refuse_unfit(run, plan, {stage.name: stage.rung for stage in waiting})
        _start_chain(run, asked=wish.person)
    return [_said(stage, running=running, started=starts) for stage in now.stages]


def _said(stage: state.StageState, *, running: bool, started: bool) -> Done:
    if stage.state == "given":
        return Done(stage.name, "given")
    if stage.state == "complete":
        return Done(stage.name, "complete")
    if running or started:
        return Done(stage.name, "queued" if running else "started")
    if stage.state == "failed":
        return Done(stage.name, "failed", reason=f"{stage.failed}: {stage.reason}")
    return Done(stage.name, "cancelled" if stage.state == "cancelled" else "left")


def _start_chain(run: RunPaths, *, asked: bool) -> None:
    env = {**os.environ, "PYTHONPATH": str(run.code)}
    argv = [sys.executable, "-m", "launcher.run.local_chain", str(run.root)]
    resumed = journal.append(run.journal, journal.Event("resumed", time.time(), asked=asked))
    chain = shell.detach(argv, run.local_log, env)
    deadline = time.monotonic() + START_S
    while local_chain.holder(run) is None:
        ended = chain.poll() is not None
        if ended and journal.read(run.journal)[-1].number > resumed.number:
            break
        if ended or time.monotonic() > deadline:
            raise LauncherError("the chain did not start", hint=f"see {run.local_log}")
        time.sleep(0.05)


def cancel(run: RunPaths, plan: Plan) -> list[str]:
    """End what runs and take what waits out of the queue. Returns the names of those stages.

    The journal says it first, so that a job which starts in this moment refuses to train. Only
    jobs with this run's own tag are touched, those of earlier submissions too: the same command
    again ends what it could not the first time. Raises SchedulerUnavailable.
    """
    with only_one(run):
        scheduler = engine(plan)
        if scheduler is None:
            return _cancel_local(run, plan)
        events = journal.read(run.journal)
        now = state.read(run, plan, state.View(queue=scheduler.queue()), events)
        ending = _unfinished(now, journal.submissions(events))
        if ending and not journal.run_cancelled(events):
            journal.append(run.journal, journal.Event("cancelled", time.time()))
        _await_jobs(run, scheduler, journal.submissions(events))
        # Another look: whoever acted until then may have its job in the queue only now.
        events = journal.read(run.journal)
        known, tokens = journal.submissions(events), journal.known_tokens(events)
        own = {tag(run.root.name, *each): each[0] for each in tokens}
        queue = scheduler.queue()
        jobs = [j for key, j in queue.items() if key in own and j.alive and j.word != "COMPLETING"]
        ending |= {own[job.tag] for job in jobs}
        for name in ending & known.keys():
            if not known[name].cancelled:
                _note_cancelled(run, known[name])
        scheduler.cancel(jobs)
        return [stage.name for stage in plan.stages if stage.name in ending]


def _await_jobs(run: RunPaths, scheduler: Engine, known: Mapping[str, journal.Submission]) -> None:
    """Let an sbatch that outlived its launcher come to its end: its job is to be ended too."""
    logs = [run.stage(each.stage).logs for each in known.values() if each.job_id is None]
    deadline = time.monotonic() + PATIENCE_S
    while any(map(scheduler.sending, logs)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _unfinished(now: state.RunState, known: Mapping[str, journal.Submission]) -> set[str]:
    """The stages of which something may yet come without a person."""
    return {
        stage.name
        for stage in now.stages
        if stage.queued
        or stage.passing
        # One that was announced may be on its way into the queue.
        or (stage.state == "absent" and stage.name in known)
    }


def _note_cancelled(run: RunPaths, known: journal.Submission) -> None:
    event = journal.Event("cancelled", time.time(), known.stage, known.token, known.job_id)
    journal.append(run.journal, event)


def _cancel_local(run: RunPaths, plan: Plan) -> list[str]:
    chain = local_chain.holder(run)
    if chain is None:
        return []
    if chain.host != platform.node():
        raise LauncherError(
            f"the chain of {run.root.name} runs on {chain.host}",
            hint="cancel it there: its processes are not of this machine",
        )
    active = [s.name for s in look(run, plan).stages if s.state in ("pending", "running")]
    journal.append(run.journal, journal.Event("cancelled", time.time()))
    deadline = time.monotonic() + CANCEL_S
    while local_chain.holder(run) == chain:
        # What a chain that does not end leaves behind ends by itself.
        late = time.monotonic() > deadline
        with suppress(ProcessLookupError):
            os.kill(chain.pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.1)
    # Now that nothing is submitted any more: which stage it was that the chain had begun.
    known = journal.submissions(journal.read(run.journal))
    for stage in look(run, plan).stages:
        if stage.name in active and stage.name in known and stage.state != "complete":
            _note_cancelled(run, known[stage.name])
    return active
