"""What the rest of launcher says to an engine, and what it hears back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from launcher.cluster.types import Cluster
from launcher.plan.types import Allocation

QueueState = Literal["pending", "running", "complete", "failed", "cancelled", "blocked"]
"""`blocked`: pending on something that can no longer happen."""


@dataclass(frozen=True)
class JobRequest:
    """One stage as a job: what is asked of the cluster, and the three strings that it runs with."""

    run: Path
    run_id: str
    stage: str
    token: str
    allocation: Allocation
    cluster: Cluster
    logs: Path
    code: Path
    """What the job puts on its PYTHONPATH."""
    python: str
    env: Mapping[str, str]
    dependencies: tuple[str, ...] = ()
    """Ids of the jobs that must have ended well."""
    after: tuple[str, ...] = ()
    """Ids of the jobs that must have ended, however: they write where this one will."""
    advance: bool = False
    """Whether its script calls `launcher advance` where its program did not end well."""

    @property
    def name(self) -> str:
        return f"{self.run_id}.{self.stage}"

    @property
    def folder(self) -> Path:
        """Where it runs. Not where the user stands: `python -m` imports from there first, so that
        a checkout would go before the run's own code."""
        return self.logs.parent

    @property
    def tag(self) -> str:
        """What proves that a job of the queue is this one: an id alone proves nothing."""
        return tag(self.run_id, self.stage, self.token)


def tag(run_id: str, stage: str, token: str) -> str:
    return f"launcher:{run_id}:{stage}:{token}"


@dataclass(frozen=True)
class QueuedJob:
    """A job as the scheduler tells of it now."""

    job_id: str
    tag: str
    state: QueueState
    word: str
    """The scheduler's own state, as it spells it."""
    reason: str = ""
    """Why it waits or ended, in words."""
    starts: str = ""
    """When the scheduler expects to start it, as it writes that; empty: not known."""
    nodes: str = ""
    waits_for: tuple[str, ...] = ()
    """Ids of the jobs whose good end it still waits for, or that did not end well."""
    after: tuple[str, ...] = ()
    """Ids of the jobs whose end it still waits for, however they end."""
    held: bool = False
    """Slurm put it back into the queue after a start that failed, and holds it."""

    @property
    def alive(self) -> bool:
        """Whether it is in the queue, or runs."""
        return self.state in ("pending", "blocked", "running")


class Engine(Protocol):
    """Where stages run."""

    def submit(self, request: JobRequest) -> str:
        """Queue the job; returns its id. Raises LauncherError."""

    def sending(self, logs: Path) -> bool:
        """Whether a job that writes its logs there is on its way into the queue from this machine,
        be the launcher that sends it gone."""

    def queue(self) -> Mapping[str, QueuedJob]:
        """This user's jobs of ours, by tag, in one query. Raises SchedulerUnavailable."""

    def cancel(self, jobs: Sequence[QueuedJob]) -> None:
        """End the jobs, or take them out of the queue. One that is gone already is no error.

        Like `depend` and `release`, it acts on those alone that carry their tag now: ids are given
        again.
        """

    def depend(
        self, job: QueuedJob, dependencies: Sequence[str], after: Sequence[str] = ()
    ) -> bool:
        """Let a waiting job wait on these jobs instead: on their good end, and on their end.

        False: it does not wait any more. Raises LauncherError.
        """

    def release(self, job: QueuedJob) -> bool:
        """Let a held job go. False: Slurm does not let this user. Raises SchedulerUnavailable."""

    def ending(self, job_id: str, restarts: int) -> str:
        """The state that a job comes to whose program is over, asked by its own script.

        PENDING (it was put back into the queue), TIMEOUT, PREEMPTED, CANCELLED, FAILED; empty: not
        known.
        `restarts`: how often it had been started before this start.
        """
