"""The Slurm engine: jobs go out through Submitit, everything else is a command and its parser."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.scheduler import queue, shell
from launcher.scheduler.jobs import JobRequest, QueuedJob


class SlurmEngine:
    def submit(self, request: JobRequest) -> str:
        # Submitit takes a while to load, and a status needs none of it.
        from launcher.scheduler import submission

        Path(request.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        return submission.send(request)

    def sending(self, logs: Path) -> bool:
        # What Submitit calls the script until sbatch has answered.
        return shell.works_on(f"{logs}/.submission_file_")

    def queue(self) -> Mapping[str, QueuedJob]:
        return queue.parse_squeue(shell.run(queue.squeue_command(str(os.getuid()))))

    def cancel(self, jobs: Sequence[QueuedJob]) -> None:
        ids = [job.job_id for job in self._current(jobs)]
        if ids:
            shell.run(["scancel", "--quiet", f"--user={os.getuid()}", *ids])

    def depend(
        self, job: QueuedJob, dependencies: Sequence[str], after: Sequence[str] = ()
    ) -> bool:
        if not self._current([job]):
            return False
        kinds = {"afterok": dependencies, "afterany": after}
        wanted = ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in kinds.items() if ids)
        try:
            shell.run(["scontrol", "update", f"jobid={job.job_id}", f"dependency={wanted}"])
        except shell.CommandFailed:
            if any(now.state != "running" for now in self._current([job])):
                raise
            return False
        return True

    def release(self, job: QueuedJob) -> bool:
        try:
            if self._current([job]):
                shell.run(["scontrol", "release", job.job_id])
        except shell.CommandFailed:
            return False
        return True

    def ending(self, job_id: str, restarts: int) -> str:
        return queue.ending(shell.run(["scontrol", "show", "job", "--oneliner", job_id]), restarts)

    def _current(self, jobs: Sequence[QueuedJob]) -> list[QueuedJob]:
        """Those of `jobs` that are in the queue still, as it tells of them now."""
        if not jobs:
            return []
        fresh = self.queue()
        found = [fresh[job.tag] for job in jobs if job.tag in fresh]
        ids = {job.job_id for job in jobs}
        return [job for job in found if job.job_id in ids and job.alive]


def requeue(job_id: str) -> None:
    """Put the job back into the queue under its id, from inside it, unless a user cancelled it.

    Slurm's own word decides, because a preemption and a scancel begin with the same signal: in the
    grace of a preemption the job is still RUNNING.
    """
    words = shell.run(
        ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%r"]
    )
    state, _, reason = words.strip().partition("|")
    if state == "RUNNING" or reason == "TimeLimit":
        shell.run(["scontrol", "requeue", job_id], timeout=60)
