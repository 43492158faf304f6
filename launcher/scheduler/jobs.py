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


class Engine(Protocol):
    """Where stages run."""

    def submit(self, request: JobRequest) -> str:
        """Queue the job; returns its id. Raises LauncherError."""

    def queue(self) -> Mapping[str, QueuedJob]:
        """This user's jobs of ours, by tag, in one query. Raises SchedulerUnavailable."""

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End the jobs, or take them out of the queue. A job that is gone already is no error."""

    def depend(self, job_id: str, dependencies: Sequence[str]) -> None:
        """Let a waiting job wait on these jobs instead. Raises LauncherError."""
