"""One thin process a task, without torch: it starts the trainer as its child and answers for it.

It checks that this job is the one the journal means, that what the stage builds on is finished and
whole, hands signals on, and (rank 0) leaves a receipt of the attempt.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from launcher.errors import LauncherError
from launcher.plan.document import plan_from_json
from launcher.plan.types import StagePlan
from launcher.records import attempts, complete, files, journal
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import measure
from launcher.worker.outcome import STOPPED, SUPERSEDED, USER_ERROR

# A stop reaches the trainer as this signal, whatever it was for the supervisor: one contract.
STOP_SIGNAL = signal.SIGUSR2
POLL_S = 0.2


@dataclass(frozen=True)
class Ended:
    exit_code: int
    requeue: bool
    """Whether the job should go back into the queue: Slurm warned of its end, and a checkpoint is
    there to go on from."""


@dataclass
class _Signals:
    """What reached this supervisor so far."""

    stop: bool = False
    warned: bool = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.stop = True
        self.warned = self.warned or number == signal.SIGUSR2


def supervise(run: str, stage: str, token: str, job_id: str) -> Ended:
    """Run one attempt at `stage` on this rank; the rank is read from RANK as torch does."""
    os.umask(0o077)
    signals = _Signals()
    signals.install()
    paths = RunPaths(Path(run))
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stage_paths = paths.stage(stage)
    receipt = attempts.Attempt(
        number=0,
        token=token,
        job_id=job_id,
        host=platform.node(),
        processes=world,
        started=time.time(),
    )
    if (complete.read(stage_paths)) is not None:
        print(f"stage {stage} is complete already", flush=True)
        return Ended(0, requeue=False)
    if rank == 0:
        receipt = attempts.start(stage_paths.attempts, receipt)
    refusal = _refusal(paths, stage, token)
    if refusal is not None:
        print(refusal.failure.message if refusal.failure else refusal.outcome, flush=True)
        if rank == 0:
            attempts.finish(
                stage_paths.attempts,
                replace(receipt, ended=time.time(), **vars(refusal)),
            )
        return Ended(refusal.exit_code, requeue=False)
    plan = plan_from_json(paths.plan.read_text()).stage(stage)
    code = _train(run, stage, token, job_id, _environment(plan), signals)
    if rank == 0:
        attempts.finish(stage_paths.attempts, _receipt(receipt, stage_paths, code, signals))
    return Ended(code, requeue=code == STOPPED and signals.warned)


@dataclass(frozen=True)
class _Refusal:
    outcome: attempts.Outcome
    exit_code: int
    failure: attempts.Failure | None = None


def _refusal(paths: RunPaths, stage: str, token: str) -> _Refusal | None:
    """Why this job must not train, or None."""
    current = journal.submissions(journal.read(paths.journal)).get(stage)
    if current is None or current.token != token or current.cancelled:
        return _Refusal("superseded", SUPERSEDED)
    plan = plan_from_json(paths.plan.read_text())
    try:
        for name in plan.stage(stage).stage.needs:
            if plan.stage(name).stage.use is None:
                complete.verify(paths.stage(name))
    except LauncherError as error:
        words = f"{error.message}; {error.hint}" if error.hint else error.message
        failure = attempts.Failure(rank=0, message=words, traceback="", kind="user")
        return _Refusal("error", USER_ERROR, failure)
    return None


def _environment(plan: StagePlan) -> Mapping[str, str]:
    # No more threads than cores that this task may use: a development cluster declares more.
    threads = str(max(1, min(plan.allocation.cpus_per_task, len(os.sched_getaffinity(0)))))
    return {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Bars that rewrite their line make a log file unreadable; progress has a file of its own.
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }


def _train(
    run: str, stage: str, token: str, job_id: str, env: Mapping[str, str], signals: _Signals
) -> int:
    """The trainer's exit code, as a shell would tell it (128 + signal)."""
    parent = os.getppid()
    trainer = subprocess.Popen(
        [sys.executable, "-u", "-m", "launcher.worker.train", run, stage, token, job_id], env=env
    )
    told = False
    while (code := trainer.poll()) is None:
        if signals.stop and not told:
            trainer.send_signal(STOP_SIGNAL)
            told = True
        if os.getppid() != parent:
            # Whoever started this job is gone and nobody would collect it: end with it.
            trainer.kill()
        time.sleep(POLL_S)
    return code if code >= 0 else 128 - code


def _receipt(
    receipt: attempts.Attempt, stage: StagePaths, code: int, signals: _Signals
) -> attempts.Attempt:
    outcome: attempts.Outcome
    if code == 0:
        outcome = "complete"
    elif code == STOPPED:
        outcome = "stopped"
    elif signals.stop:
        outcome = "terminated"
    elif code > 128:
        outcome = "killed"
    else:
        outcome = "error"
    found = attempts.failures(stage.attempts, receipt.job_id)
    return replace(
        receipt,
        ended=time.time(),
        outcome=outcome,
        exit_code=code,
        failure=found[0] if found and outcome != "complete" else None,
        peak_bytes=files.read_json(measure.path(stage, receipt.job_id), dict) or {},
    )
