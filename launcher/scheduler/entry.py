"""What each task of a job runs: it joins the tasks into one world, then hands over to the worker.

python -m launcher.scheduler.entry RUN STAGE TOKEN
"""

from __future__ import annotations

import signal

# Before all else: a signal that came while the rest is loaded would end this process without a
# word. They wait until the supervisor has its handlers.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})

# ruff: noqa: E402
import importlib
import os
import sys
import time
from collections.abc import Callable

from submitit.helpers import TorchDistributedEnvironment

from launcher.errors import LauncherError
from launcher.scheduler import local, slurm
from launcher.scheduler.first_task import FirstTask

WORKER = "launcher.worker.supervisor"
REQUEUE_S = 60.0
"""How long a silent controller is asked again. Slurm may end the job before, at its time limit."""


def main(run: str, stage: str, token: str) -> int:
    """Exit code of the stage's attempt on this rank."""
    # The GPU of a rank is its local rank; hiding the others would break NCCL's peer access.
    world = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    here = os.environ["SUBMITIT_EXECUTOR"] == "local"
    if here:
        # The machine's own name need not resolve.
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        job_id = local.job_id(os.environ["SUBMITIT_LOCAL_JOB_ID"])
    else:
        job_id = os.environ["SLURM_JOB_ID"]
    # A job that Slurm puts back into the queue keeps its id.
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    worker = importlib.import_module(WORKER)
    deserted = _deserted(here, first=world.rank == 0)
    ended = worker.supervise(run, stage, token, job_id, deserted, restarts)
    if ended.requeue and not here:
        if world.rank != 0:
            # srun ends the whole step at the first exit code but 0, and rank 0 is not done.
            return 0
        _requeue(job_id)
    return int(ended.exit_code)


def _requeue(job_id: str) -> None:
    """Put this job back into the queue, as soon as Slurm answers. Raises LauncherError where it
    does not in time: then the job has failed, and the next command that acts goes on with it."""
    deadline = time.monotonic() + REQUEUE_S
    while True:
        try:
            slurm.requeue(job_id)
        except LauncherError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def _deserted(here: bool, *, first: bool) -> Callable[[], bool]:
    """Whether the process that started this task is gone, or on this machine lets go of it; there
    a task that is not the `first` is deserted by that one, too."""
    parent = os.getppid()
    other = FirstTask() if here and not first else None
    return lambda: (
        os.getppid() != parent or (here and local.let_go()) or (other is not None and other.gone())
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
