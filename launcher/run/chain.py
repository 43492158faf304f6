"""Bringing the chain of a run into Slurm's queue, each stage once.

A pass looks (journal, then queue, then the stages' records), decides by `moves`, and acts. What it
writes into the journal it writes as the event after the last that it read; where somebody else was
sooner, nothing is done and the next pass looks again. So launchers on any number of hosts make one
chain, and one that is killed leaves what the next can read.
"""

from __future__ import annotations

import os
import platform
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from launcher.errors import LauncherError, SchedulerUnavailable, UsageError
from launcher.plan.types import Plan
from launcher.records import files, journal
from launcher.records.paths import RunPaths
from launcher.run import again, checkpoints, inputs, state
from launcher.run.moves import Move, moves
from launcher.run.request import job_request
from launcher.scheduler.jobs import Engine, QueuedJob, tag

Action = Literal[
    "given", "complete", "queued", "adopted", "rewired", "submitted", "started", "released",
    "given up", "dropped", "failed", "cancelled", "left",
]  # fmt: skip

BUSY_S = 60.0
"""How long a command goes on while others act on the same run."""
PATIENCE_S = 10.0
"""How long another launcher may take between its intent and the id of its job."""
POLL_S = 0.2
ENDING_S = 1.0
"""Between two looks at a job that is to end."""


@dataclass(frozen=True)
class Done:
    """What became of one stage."""

    stage: str
    action: Action
    job_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Wish:
    """What a command wants of the chain."""

    person: bool = True
    """A person asked: what failed is tried again."""
    resume: bool = False
    """What was cancelled goes on."""
    ended: str | None = None
    """Id of the job that asks, whose program is over."""
    restarts: int = 0
    """How often that job had been started before."""


class _Overtaken(Exception):
    """Somebody else wrote into the journal since it was read."""


def bring(run: RunPaths, plan: Plan, scheduler: Engine, wish: Wish) -> list[Done]:
    """Act until every stage is where `wish` wants it. Returns what was done with each.

    Raises UsageError for a cancelled run that a person does not resume, and, before anything is
    sent, for a stage that cannot go on from its checkpoints; SchedulerUnavailable where Slurm is
    silent, and LauncherError where it refuses a job, each between two stages at most: the same
    command goes on from there.
    """
    done: dict[str, Done] = {}
    deadline = time.monotonic() + BUSY_S
    while time.monotonic() < deadline:
        # A stage that this very command sent is not sent again because a person asked.
        sent = {each.stage for each in done.values() if each.action == "submitted"}
        chain = _Pass(run, plan, scheduler, wish, sent)
        try:
            chain.act()
        except _Overtaken:
            time.sleep(random.uniform(0, POLL_S))
            continue
        finally:
            for each in chain.done:
                if each.action not in ("queued", "left") or each.stage not in done:
                    done[each.stage] = each
        if not chain.changed:
            return [done[stage.name] for stage in plan.stages]
    raise LauncherError(
        f"others act on {run.root.name} all the time", hint="try the same command again"
    )


class _Pass:
    """One look, and what follows from it."""

    def __init__(
        self, run: RunPaths, plan: Plan, scheduler: Engine, wish: Wish, sent: set[str]
    ) -> None:
        self._run, self._plan, self._scheduler, self._wish = run, plan, scheduler, wish
        self._sent = sent
        self.done: list[Done] = []
        self.changed = False
        """Whether it did anything that another look should confirm."""

    def act(self) -> None:
        self._look()
        if any(stage.state == "unknown" for stage in self._now.stages):
            raise SchedulerUnavailable("Slurm does not answer", hint="try the same command again")
        asked = {s.name for s in self._now.stages} if self._wish.person else set()
        for stage in self._now.stages:
            goes_on = self._wish.resume and stage.name in asked
            if stage.state == "cancelled" and self._wish.person and not goes_on:
                raise _cancelled(self._run, stage.name)
        self._wait_for_others()
        if self._end_anew() or again.clear(self._run, self._events):
            self.changed = True
            raise _Overtaken
        self._take_out_strays()
        stages = {stage.name: stage for stage in self._now.stages}
        todo = moves(self._now, self._plan, self._known, asked=asked)
        rungs = {move.stage: move.rung for move in todo if move.kind == "send"}
        if self._wish.person and rungs:
            inputs.refuse_changes(self._run, self._plan)
        checkpoints.refuse_unfit(self._run, self._plan, rungs)
        jobs = {s.name: s.job_id for s in self._now.stages if s.queued and s.job_id is not None}
        for move in todo:
            needs = self._plan.stage(move.stage).stage.needs
            waits_for = tuple(jobs[name] for name in needs if name in jobs)
            stage = stages[move.stage]
            if move.kind == "send" and stage.name in self._sent:
                # This very command sent it. Where the queue does not show it, sending it again
                # and again would help nobody: the next command that acts finds out why.
                if stage.job_id is not None:
                    jobs[move.stage] = stage.job_id
            elif move.kind == "send":
                self._note_failure(stage)
                jobs[move.stage] = self._send(stage, waits_for, move.rung)
            elif move.kind in ("keep", "release"):
                self._keep(stage, waits_for, release=move.kind == "release")
            elif move.kind in ("drop", "give up"):
                self._take_out(stage, move)
                del jobs[move.stage]
            elif move.kind == "leave":
                self._leave(stage, move)
            else:
                self._say(move.stage, "given" if stage.state == "given" else "complete")

    def _look(self) -> None:
        self._events = journal.read(self._run.journal)
        self._seen = self._events[-1].number if self._events else 0
        self._known = journal.submissions(self._events)
        self._queue = dict(self._scheduler.queue())
        view = dict(self._queue)
        if self._wish.ended is not None:
            view = self._without_ended(view)
        self._now = state.read(self._run, self._plan, state.View(queue=view), self._events)
        if journal.last(self._run.journal) != self._seen:
            raise _Overtaken

    def _without_ended(self, view: Mapping[str, QueuedJob]) -> dict[str, QueuedJob]:
        """The queue with the job that asks as what it comes to."""
        found = dict(view)
        for key, job in view.items():
            if job.job_id == self._wish.ended and job.state == "running":
                word = self._scheduler.ending(job.job_id, self._wish.restarts)
                states: Mapping[str, Literal["failed", "cancelled"]] = {
                    "TIMEOUT": "failed", "PREEMPTED": "failed", "FAILED": "failed",
                    "CANCELLED": "cancelled",
                }  # fmt: skip
                if word in states and not (word == "CANCELLED" and self._preemptible(key)):
                    found[key] = replace(job, state=states[word], word=word)
        return found

    def _preemptible(self, key: str) -> bool:
        """Whether what looks like a user's cancellation may be a preemption that ends jobs."""
        allocation = self._plan.stage(key.split(":")[2]).allocation
        return self._plan.cluster.partition(allocation.partition).preemptible

    def _wait_for_others(self) -> None:
        """Let what another launcher announced come to an end: its sbatch may be on its way, though
        it is gone itself. Raises _Overtaken once it has recorded what came of it."""
        stages = {s.name for s in self._now.stages if s.state == "absent"}
        open_ = [s for s in self._known.values() if s.stage in stages and self._awaited(s)]
        if not open_:
            return
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and any(self._awaited(each) for each in open_):
            time.sleep(POLL_S)
            if journal.last(self._run.journal) != self._seen:
                raise _Overtaken
        # Its job may be in the queue by now.
        self._look()

    def _awaited(self, submission: journal.Submission) -> bool:
        """Whether the job that was announced may yet come, or its id be recorded."""
        if submission.job_id is not None or submission.refused:
            return False
        if submission.host != platform.node():
            return bool(submission.host)
        if submission.pid == os.getpid():
            # This very process, and it is not at it: its sbatch was not answered.
            return False
        logs = self._run.stage(submission.stage).logs
        return _lives(submission.pid) or self._scheduler.sending(logs)

    def _end_anew(self) -> bool:
        """End the jobs of stages that are to be run anew, before their files move. Whether there
        were any."""
        anew = journal.anew(self._events)
        jobs = [
            job
            for job in self._queue.values()
            if job.alive and self._stage_of(job) in anew and job.job_id != self._wish.ended
        ]
        self._scheduler.cancel(jobs)
        if jobs:
            time.sleep(ENDING_S)
        return bool(jobs)

    def _stage_of(self, job: QueuedJob) -> str | None:
        """The stage of this run that a job is of."""
        prefix, run_id, stage, _ = [*job.tag.split(":", 3), "", "", ""][:4]
        return stage if (prefix, run_id) == ("launcher", self._run.root.name) else None

    def _take_out_strays(self) -> None:
        """Cancel jobs of this run that are not, or no longer, those that the journal means."""
        old = journal.known_tokens(self._events)
        complete = {stage.name for stage in self._now.stages if stage.state == "complete"}
        strays: list[QueuedJob] = []
        for job in self._queue.values():
            stage, token = self._stage_of(job), job.tag.rpartition(":")[2]
            if stage is None or not job.alive:
                continue
            if (stage, token) not in old or job.job_id == self._wish.ended:
                # A token that this look does not know is somebody's newest.
                continue
            current = self._known[stage]
            if current.token != token or current.cancelled:
                strays += [job] if job.state != "running" or job.word == "RUNNING" else []
            elif stage in complete and job.state != "running":
                strays.append(job)
        if strays:
            self._scheduler.cancel(strays)
            self.changed = True

    def _send(self, stage: state.StageState, waits_for: tuple[str, ...], rung: int) -> str:
        # What a job that is ending still writes, a checkpoint, is where the new one will write.
        after: tuple[str, ...] = ()
        if stage.job_id is not None and (stage.ending or stage.job_id == self._wish.ended):
            after = (stage.job_id,)
        token = uuid.uuid4().hex
        files.private_folder(self._run.stage(stage.name).logs)
        person = self._wish.person
        self._append(journal.intent(stage.name, token, time.time(), rung=rung, asked=person))
        request = job_request(self._run, self._plan, stage.name, token, waits_for, after, rung)
        try:
            job_id = self._scheduler.submit(request)
        except SchedulerUnavailable:
            # It may have been accepted all the same: the next look finds it by its tag.
            raise
        except LauncherError as error:
            self._note(self._event("refused", stage.name, token, None, error.message))
            queued = [each.stage for each in self.done if each.job_id is not None]
            raise LauncherError(
                error.message + (f"; queued: {', '.join(queued)}" if queued else ""),
                hint=f"{error.hint or 'see to it'}; the same command goes on",
            ) from error
        self.changed = True
        number = self._note(self._event("submitted", stage.name, token, job_id)).number
        self._say(stage.name, "submitted", job_id)
        if number != self._seen + 1:
            self._stand_back(stage.name, token, job_id)
        self._seen = number
        return job_id

    def _stand_back(self, stage: str, token: str, job_id: str) -> None:
        """Others wrote while sbatch ran: where they mean another job, this one goes.

        Raises _Overtaken, or UsageError where the stage was cancelled meanwhile.
        """
        events = journal.read(self._run.journal)
        current = journal.submissions(events)[stage]
        if current.token != token or current.cancelled or journal.run_cancelled(events):
            own = tag(self._run.root.name, stage, token)
            self._scheduler.cancel([QueuedJob(job_id, own, "pending", "PENDING")])
            if current.token == token and not current.dropped:
                raise _cancelled(self._run, stage)
        raise _Overtaken

    def _keep(self, stage: state.StageState, waits_for: tuple[str, ...], *, release: bool) -> None:
        assert stage.job_id is not None
        known = self._known[stage.name]
        job = self._queue[tag(self._run.root.name, stage.name, known.token)]
        action: Action = "queued"
        if known.job_id is None:
            self._append(self._event("submitted", stage.name, known.token, stage.job_id))
            action = "adopted"
        if release:
            self._append(self._event("released", stage.name, known.token, stage.job_id))
            action = "released" if self._scheduler.release(job) else "queued"
        elif job.state != "running" and self._waits_wrongly(job, waits_for):
            if self._scheduler.depend(job, waits_for, job.after):
                action = "rewired"
            self.changed = True
        self._say(stage.name, action, stage.job_id)

    def _waits_wrongly(self, job: QueuedJob, waits_for: Sequence[str]) -> bool:
        """Whether the job waits for others than those whose end it needs.

        One that runs, and is complete, will have ended in a moment.
        """
        running = {each.job_id for each in self._queue.values() if each.state == "running"}
        extra = set(job.waits_for) - set(waits_for) - running
        return job.state == "blocked" or bool(set(waits_for) - set(job.waits_for) or extra)

    def _take_out(self, stage: state.StageState, move: Move) -> None:
        """Out of the queue, for good or until somebody resumes. The journal says it first."""
        known = self._known[stage.name]
        job = self._queue[tag(self._run.root.name, stage.name, known.token)]
        event = self._event("dropped", stage.name, known.token, job.job_id, move.reason)
        if move.kind == "give up":
            event = replace(event, kind="failed", failure="held")
        self._append(event)
        self._scheduler.cancel([job])
        action: Action = "given up" if move.kind == "give up" else "dropped"
        self._say(stage.name, action, job.job_id, move.reason)

    def _leave(self, stage: state.StageState, move: Move) -> None:
        if stage.state == "failed":
            self._note_failure(stage)
            self._say(stage.name, "failed", reason=f"{stage.failed}: {stage.reason}")
        elif stage.state == "cancelled":
            known = self._known.get(stage.name)
            if known is not None and not known.cancelled:
                # Slurm forgets it in minutes.
                self._append(
                    self._event("cancelled", stage.name, known.token, known.job_id, "by scancel")
                )
            self._say(stage.name, "cancelled")
        else:
            self._say(stage.name, "left", reason=move.reason)

    def _note_failure(self, stage: state.StageState) -> None:
        """Keep what was found of a job that is over, for Slurm forgets it in minutes."""
        known = self._known.get(stage.name)
        if stage.state == "failed" and known is not None and known.failure is None:
            event = self._event("failed", stage.name, known.token, known.job_id, stage.reason)
            self._append(replace(event, failure=stage.failed))

    def _say(self, stage: str, action: Action, job_id: str | None = None, reason: str = "") -> None:
        self.done.append(Done(stage, action, job_id, reason))

    def _event(
        self,
        kind: journal.Kind,
        stage: str,
        token: str,
        job_id: str | None,
        detail: str | None = None,
    ) -> journal.Event:
        return journal.Event(kind, time.time(), stage, token, job_id, detail)

    def _append(self, event: journal.Event) -> None:
        written = journal.append_after(self._run.journal, event, self._seen)
        if written is None:
            raise _Overtaken
        self._seen = written.number

    def _note(self, event: journal.Event) -> journal.Event:
        """What is so whoever wrote before."""
        return journal.append(self._run.journal, event)


def _cancelled(run: RunPaths, stage: str) -> UsageError:
    return UsageError(
        f"stage {stage} of {run.root.name} was cancelled",
        hint=f"launcher resume {run.root.name} goes on with it; --new makes another run",
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
