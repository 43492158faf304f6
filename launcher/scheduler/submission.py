"""One job to Slurm, through Submitit."""

from __future__ import annotations

from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler import sbatch, shell
from launcher.scheduler.jobs import JobRequest


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

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        without = [f"--unset={name}" for name in shell.hidden()]
        return ["env", *without, *super()._make_submission_command(submission_file_path)]

    def _num_tasks(self) -> int:
        return self._request.allocation.all_tasks

    def send(self) -> str:
        return str(self._submit_command(sbatch.command(self._request)).job_id)


def send(request: JobRequest) -> str:
    """The id of the queued job. Raises SchedulerUnavailable, LauncherError where it is refused."""
    try:
        return _Executor(request).send()
    except (FailedJobError, FailedSubmissionError) as error:
        words = str(error)
        theirs = ", ".join(name for name in shell.hidden() if name.startswith("SBATCH_"))
        unused = f"; {theirs} of this shell were left out" if theirs else ""
        raise shell.unavailable(words) or LauncherError(
            f"Slurm refused the job of stage {request.stage}: {shell.said(words)}",
            hint=f"correct the cluster profile or the recipe's resources{unused}",
        ) from error
    except RuntimeError as error:
        raise SchedulerUnavailable(
            "srun is not on this machine", hint="run on a login node of the cluster"
        ) from error
