"""What each task of a job runs: it joins the tasks into one world, then hands over to the worker.

python -m launcher.scheduler.entry RUN STAGE TOKEN
"""

from __future__ import annotations

import importlib
import os
import sys

from submitit.helpers import TorchDistributedEnvironment

from launcher.scheduler import slurm

WORKER = "launcher.worker.supervisor"


def main(run: str, stage: str, token: str) -> int:
    """Exit code of the stage's attempt on this rank."""
    # The GPU of a rank is its local rank; hiding the others would break NCCL's peer access.
    world = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    job_id = os.environ.get("SLURM_JOB_ID") or f"local-{os.environ['SUBMITIT_LOCAL_JOB_ID']}"
    worker = importlib.import_module(WORKER)
    ended = worker.supervise(run, stage, token, job_id)
    if ended.requeue and world.rank == 0 and "SLURM_JOB_ID" in os.environ:
        slurm.requeue(job_id)
    return int(ended.exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
