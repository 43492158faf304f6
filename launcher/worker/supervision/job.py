"""One start of a stage's job on one rank, and the variables of its trainer."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launcher.memory.stack import grows
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import Stage
from launcher.records import attempts, checkpoints, rounds, serving
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import disk, network, scratch, secrets
from launcher.worker.signals import Signals


@dataclass(frozen=True)
class Ended:
    exit_code: int
    requeue: bool
    """Whether the job should go back into the queue."""


@dataclass(frozen=True)
class Job:
    """One start of a stage's job, on one rank."""

    paths: RunPaths
    plan: Plan
    planned: StagePlan
    """As the plan stands, the ladder apart."""
    token: str
    job_id: str
    restarts: int
    rank: int
    world: int
    """Trainers."""
    signals: Signals
    deserted: Callable[[], bool]
    began: float
    """Seconds since the epoch."""

    @property
    def stage(self) -> StagePaths:
        return self.paths.stage(self.planned.name)

    @property
    def served(self) -> bool:
        return self.planned.allocation.server_gpus > 0

    @property
    def start(self) -> serving.Start:
        return serving.Start(self.token, self.job_id, self.restarts)

    @property
    def ending(self) -> bool:
        """Whether this start of the job will not last."""
        return self.signals.stop or self.deserted()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until this start of the job will not last."""
        disk.pause(seconds, lambda: self.ending)

    def key(self, number: int) -> str:
        return rounds.key(self.job_id, self.restarts, number, self.token)

    def receipts(self) -> list[attempts.Attempt]:
        """Those of this submission."""
        return [each for each in attempts.read(self.stage.attempts) if each.token == self.token]

    def receipt(self, number: int, rung: int) -> attempts.Attempt:
        """That of a round which begins. Raises OSError."""
        return attempts.Attempt(
            number=0,
            token=self.token,
            job_id=self.job_id,
            host=platform.node(),
            processes=self.world,
            started=time.time(),
            restarts=self.restarts,
            round=number,
            rung=rung,
            began_at=checkpoints.newest_step(self.stage.checkpoints),
        )


def environment(plan: Plan, stage: str) -> Mapping[str, str]:
    """The variables of the stage's trainer. Raises UsageError for a secrets file that is not as it
    must be, OSError where the disk does not give it now."""
    planned = plan.stage(stage)
    # What profile or recipe set themselves is in the job's environment, and stays.
    theirs = {*plan.cluster.env, *planned.stage.env}
    scratched = scratch.variables(plan.cluster.scratch)
    # No more threads than cores that this task may use: a development cluster declares more.
    threads = str(max(1, min(planned.allocation.cpus_per_task, len(os.sched_getaffinity(0)))))
    return {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Bars that rewrite their line make a log file unreadable; progress has a file of its own.
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        **network.variables(os.environ),
        **_allocator(plan, planned.stage),
        **{name: value for name, value in scratched.items() if name not in theirs},
        **secrets.variables(plan.cluster.secrets),
    }


def _allocator(plan: Plan, stage: Stage) -> Mapping[str, str]:
    """Segments that grow: lengths that vary leave no holes that nothing fits. vLLM's pools of
    memory cannot live with them."""
    name = "PYTORCH_CUDA_ALLOC_CONF"
    if plan.cluster.device != "cuda" or not grows(stage) or name in os.environ:
        return {}
    return {name: "expandable_segments:True"}
