"""This machine as an engine: one stage at a time through Submitit's local executor."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import submitit

from launcher.scheduler import sbatch
from launcher.scheduler.jobs import JobRequest

# How long tasks that were let go of may take to end their trainers and write their receipts.
LET_GO_S = 10
POLL_S = 0.1


def job_id(submitit_id: str) -> str:
    """The id of a job of this machine, which no Slurm job has."""
    return f"local-{submitit_id}"


def let_go() -> bool:
    """In a task: whether the process that runs the chain is gone, or gave this job up.

    Every task's standard input is a pipe that this process holds open and never writes to.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


class _Executor(submitit.LocalExecutor):
    def __init__(self, request: JobRequest) -> None:
        super().__init__(folder=request.logs)
        self._request = request
        allocation = request.allocation
        gpus = allocation.all_tasks_per_node if allocation.gpu else 0
        self.update_parameters(
            timeout_min=allocation.time_minutes,
            signal_delay_s=allocation.signal_lead_s,
            tasks_per_node=allocation.all_tasks_per_node,
            gpus_per_node=gpus,
            stderr_to_stdout=True,
        )
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if gpus and visible:
            # Submitit takes numbers only, and would count from the machine's first GPU.
            self.parameters["visible_gpus"] = tuple(visible.split(","))

    def send(self) -> submitit.LocalJob[None]:
        return self._submit_command(sbatch.command(self._request))


class LocalJob:
    """A running stage on this machine."""

    def __init__(self, request: JobRequest) -> None:
        """Start it. Its variables are this process's own, with those of the profile and stage."""
        Path(request.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        held, self._lifeline = os.pipe()
        own = {**request.cluster.env, **request.env, "PYTHONPATH": str(request.code)}
        with _environment(own), _standard_input(held):
            self._job = _Executor(request).send()
        assert self._job._process is not None
        self._process = self._job._process

    @property
    def job_id(self) -> str:
        return job_id(self._job.job_id)

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def end(self, grace: float) -> None:
        """Tell every task to stop, give them `grace` seconds for a checkpoint, then end them."""
        self._process.send_signal(signal.SIGTERM)
        if not self._ended_within(grace):
            os.close(self._lifeline)
            if not self._ended_within(LET_GO_S):
                self._process.kill()
                self._process.wait()

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """This process's variables as a job shall have them: Submitit hands on what it finds."""
    before = dict(os.environ)
    try:
        for name in before:
            # Left by a Slurm job or a distributed program that this chain was started from.
            if name.startswith(("SLURM_", "SUBMITIT_")) or name in ("MASTER_ADDR", "MASTER_PORT"):
                del os.environ[name]
        os.environ.update(own)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _standard_input(descriptor: int) -> Iterator[None]:
    """`descriptor` as what processes started now inherit as their standard input."""
    before = os.dup(0)
    try:
        os.dup2(descriptor, 0)
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(descriptor)
