"""The Slurm engine: jobs go out through Submitit, everything else is a command and its parser."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler import queue, sbatch, shell
from launcher.scheduler.jobs import JobRequest, QueuedJob


class _Executor(submitit.SlurmExecutor):
    """Submitit's executor with our script and without its pickles.

    Submitit hands a function to its job in a pickle that is renamed after sbatch has answered: a
    submitter killed in between leaves a job that waits a minute and dies. Our jobs need no more
    than three words, which stand in the script itself.
    """

    def __init__(self, request: JobRequest) -> None:
        super().__init__(folder=request.logs)
        self._request = request

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return sbatch.text(self._request)

    def _num_tasks(self) -> int:
        return self._request.allocation.processes

    def send(self) -> str:
        return str(self._submit_command(sbatch.command(self._request)).job_id)


class SlurmEngine:
    def submit(self, request: JobRequest) -> str:
        Path(request.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return _Executor(request).send()
        except (FailedJobError, FailedSubmissionError) as error:
            words = str(error).strip().splitlines()
            said = next((w for w in reversed(words) if "sbatch: error" in w), words[-1])
            if "contact slurm controller" in str(error) or "timed out" in str(error):
                raise SchedulerUnavailable(said, hint="try the same command again") from error
            raise LauncherError(
                f"Slurm refused the job of stage {request.stage}: {said}",
                hint="correct the cluster profile or the recipe's resources",
            ) from error
        except RuntimeError as error:
            raise SchedulerUnavailable(
                "srun is not on this machine", hint="run on a login node of the cluster"
            ) from error

    def queue(self) -> Mapping[str, QueuedJob]:
        return queue.parse_squeue(shell.run(queue.squeue_command(getpass.getuser())))

    def cancel(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            shell.run(["scancel", "--quiet", *job_ids])

    def depend(self, job_id: str, dependencies: Sequence[str]) -> None:
        wanted = f"dependency=afterok:{':'.join(dependencies)}" if dependencies else "dependency="
        shell.run(["scontrol", "update", f"jobid={job_id}", wanted])


def requeue(job_id: str) -> None:
    """Put the running job back into the queue under its id, from inside it."""
    shell.run(["scontrol", "requeue", job_id], timeout=60)
