"""This machine as an engine: one stage at a time through Submitit's local executor."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import submitit

from launcher.scheduler import sbatch
from launcher.scheduler.jobs import JobRequest

# How long a stage that was told to end may take to leave a checkpoint.
GRACE_S = 60


class _Executor(submitit.LocalExecutor):
    def __init__(self, request: JobRequest) -> None:
        super().__init__(folder=request.logs)
        self._request = request
        allocation = request.allocation
        self.update_parameters(
            timeout_min=allocation.time_minutes,
            tasks_per_node=allocation.tasks_per_node,
            gpus_per_node=allocation.tasks_per_node if allocation.gpu else 0,
            stderr_to_stdout=True,
        )

    def send(self) -> submitit.LocalJob[None]:
        return self._submit_command(sbatch.command(self._request))


class LocalJob:
    """A running stage on this machine."""

    def __init__(self, request: JobRequest) -> None:
        """Start it. Its variables are this process's own, with those of the profile and stage."""
        Path(request.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ.update(request.cluster.env)
        os.environ.update(request.env)
        os.environ["PYTHONPATH"] = str(request.code)
        self._job = _Executor(request).send()
        assert self._job._process is not None
        self._process = self._job._process

    @property
    def job_id(self) -> str:
        return f"local-{self._job.job_id}"

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """Tell every task to stop, wait for their checkpoint, then end them."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while self.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            time.sleep(0.1)
