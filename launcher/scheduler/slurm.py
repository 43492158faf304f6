"""The Slurm engine: jobs go out through Submitit, everything else is a command and its parser."""

from __future__ import annotations

import getpass
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

    def queue(self) -> Mapping[str, QueuedJob]:
        return queue.parse_squeue(shell.run(queue.squeue_command(getpass.getuser())))

    def cancel(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            shell.run(["scancel", "--quiet", *job_ids])

    def depend(self, job_id: str, dependencies: Sequence[str]) -> None:
        wanted = f"dependency=afterok:{':'.join(dependencies)}" if dependencies else "dependency="
        shell.run(["scontrol", "update", f"jobid={job_id}", wanted])


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
