"""Batch scripts, whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from launcher.scheduler import sbatch
from launcher.scheduler.jobs import JobRequest
from tests.unit.planning import MIXED
from tests.unit.running import ALLOCATION, request

SITE = replace(
    MIXED,
    gpu_request="gpus-per-node",
    account="lab-17",
    qos="long",
    constraint="ib&(a|b)",
    reservation="course",
    setup=("module load cuda/12.4", 'source "$HOME/env/bin/activate"'),
    env={"NCCL_SOCKET_IFNAME": "^lo,docker0"},
)
JOBS = {
    "two_nodes": request(),
    "after_two_jobs": request(stage="ppo", dependencies=("41", "42")),
    "everything_that_a_profile_says": request(cluster=SITE, env={"WANDB_MODE": "offline"}),
    "no_gpu": request(
        allocation=replace(ALLOCATION, gpu=None, gpu_memory_gib=None, nodes=1, tasks_per_node=1)
    ),
    "acts_at_its_end": request(advance=True),
    "nasty_values": request(
        advance=True,
        run="""/scratch/ada's "runs" $(date)/demo-0a1b2c3d""",
        env={"QUOTED": """it's "$HOME" `date`""", "LINES": "one\n#SBATCH --nodes=64\n"},
        python="/opt/my env/bin/python",
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_this_script(name: str, golden: Callable[[str, str], None]) -> None:
    job: JobRequest = JOBS[name]
    golden(f"sbatch/{name}.sh", sbatch.text(job))
