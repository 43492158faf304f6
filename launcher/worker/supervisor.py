"""One thin process a task, without torch: it starts the trainer as its child and answers for it.

It checks that this job is the one the journal means, that what the stage builds on is finished and
whole, hands signals on, and leaves a receipt of the attempt.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from launcher.errors import LauncherError
from launcher.memory.stack import grows
from launcher.plan.document import plan_from_json
from launcher.plan.observe import observe
from launcher.plan.types import Plan
from launcher.recipe.types import Stage
from launcher.records import attempts, complete, files, journal, ledger, measurement
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import measure, orphan, scratch
from launcher.worker.outcome import STOPPED, SUPERSEDED, USER_ERROR
from launcher.worker.stop import STOP_SIGNALS

POLL_S = 0.2


@dataclass(frozen=True)
class Ended:
    exit_code: int
    requeue: bool
    """Whether the job should go back into the queue: it was told to stop by somebody else than
    `launcher cancel`, and a checkpoint is there to go on from."""


@dataclass
class _Signals:
    """What reached this supervisor so far."""

    stop: bool = False
    """A checkpoint, please, and an end."""
    now: bool = False
    """An end: what is not saved is lost."""

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.stop = True
        # What Submitit sends to its tasks on this machine a second before it kills them.
        self.now = self.now or number == signal.SIGINT


def supervise(run: str, stage: str, token: str, job_id: str, deserted: Callable[[], bool]) -> Ended:
    """Run one attempt at `stage` on this rank; the rank is read from RANK as torch does.

    `deserted` says whether whoever started this job is gone, so that the job must end too.
    """
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
    plan = plan_from_json(paths.plan.read_text())
    refusal = _refusal(paths, plan, stage, token)
    if refusal is not None:
        print(refusal.failure.message if refusal.failure else refusal.outcome, flush=True)
        if rank == 0:
            attempts.finish(
                stage_paths.attempts,
                replace(receipt, ended=time.time(), **vars(refusal)),
            )
        return Ended(refusal.exit_code, requeue=False)
    trainer = _Trainer(run, stage, token, job_id, environment(plan, stage))
    code = trainer.wait(signals, deserted)
    if code not in (0, STOPPED):
        _leave_failure(stage_paths, job_id, rank, code, trainer.killed)
        if world > 1:
            # The others' failures: which came first tells why this rank failed.
            time.sleep(2 * POLL_S)
    failed = bool(attempts.failures(stage_paths.attempts, job_id))
    mine = receipt if rank == 0 else _open_receipt(stage_paths, token, job_id)
    # Slurm ends the whole job when one rank fails, and rank 0 with it: whoever knows writes it.
    if mine is not None and (rank == 0 or failed):
        attempts.finish(
            stage_paths.attempts, _receipt(mine, stage_paths, code, signals, trainer.host_peak)
        )
    return Ended(code, requeue=code == STOPPED and not failed and not _cancelled(paths, stage))


def _share(plan: Plan, stage: str, receipt: attempts.Attempt) -> None:
    """Leave what the attempt measured in the site's ledger, if there is one."""
    observation = observe(plan, plan.stage(stage), receipt)
    if plan.cluster.ledger is None or observation is None:
        return
    try:
        folder = Path(plan.cluster.ledger)
        ledger.add(folder, observation.when, observation.run, observation)
    except OSError as error:
        print(f"ledger {plan.cluster.ledger}: {error.strerror}", flush=True)


def _open_receipt(stage: StagePaths, token: str, job_id: str) -> attempts.Attempt | None:
    """The receipt of this job that has no end yet."""
    written = attempts.read(stage.attempts)
    for receipt in reversed(written):
        if (receipt.token, receipt.job_id, receipt.outcome) == (token, job_id, None):
            return receipt
    return None


def _cancelled(run: RunPaths, stage: str) -> bool:
    return journal.submissions(journal.read(run.journal))[stage].cancelled


@dataclass(frozen=True)
class _Refusal:
    outcome: attempts.Outcome
    exit_code: int
    failure: attempts.Failure | None = None


def _refusal(paths: RunPaths, plan: Plan, stage: str, token: str) -> _Refusal | None:
    """Why this job must not train, or None."""
    current = journal.submissions(journal.read(paths.journal)).get(stage)
    if current is None or current.token != token or current.cancelled:
        return _Refusal("superseded", SUPERSEDED)
    try:
        for name in plan.stage(stage).stage.needs:
            if plan.stage(name).stage.use is None:
                complete.verify(paths.stage(name))
    except LauncherError as error:
        words = f"{error.message}; {error.hint}" if error.hint else error.message
        failure = attempts.Failure(rank=0, message=words, traceback="", kind="user")
        return _Refusal("error", USER_ERROR, failure)
    return None


def environment(plan: Plan, stage: str) -> Mapping[str, str]:
    """The variables of the stage's trainer."""
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
        **_allocator(plan, planned.stage),
        **{name: value for name, value in scratched.items() if name not in theirs},
    }


def _allocator(plan: Plan, stage: Stage) -> Mapping[str, str]:
    """Segments that grow: lengths that vary leave no holes that nothing fits. vLLM's pools of
    memory cannot live with them."""
    name = "PYTORCH_CUDA_ALLOC_CONF"
    if plan.cluster.device != "cuda" or not grows(stage) or name in os.environ:
        return {}
    return {name: "expandable_segments:True"}


class _Trainer:
    """The trainer process of this rank."""

    def __init__(
        self, run: str, stage: str, token: str, job_id: str, env: Mapping[str, str]
    ) -> None:
        # It starts with the signals blocked, and takes them once it has a handler: a signal that
        # came while Python starts would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "launcher.worker.train", run, stage, token, job_id],
                env={**env, orphan.PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.killed: str | None = None
        """Why this supervisor killed it."""
        self.host_peak = 0
        """Largest resident set that was seen of it, in bytes: all there is of one that was killed.
        """

    def wait(self, signals: _Signals, deserted: Callable[[], bool]) -> int:
        """Its exit code, as a shell would tell it (128 + signal)."""
        told = False
        status = Path(f"/proc/{self._process.pid}/status")
        while (code := self._process.poll()) is None:
            if signals.stop and not told:
                # One signal, whatever it was for this supervisor.
                self._process.send_signal(signal.SIGUSR2)
                told = True
            if self.killed is None and (signals.now or deserted()):
                self.killed = (
                    "its time was up before it could stop"
                    if signals.now
                    else "what had started it was ended"
                )
                self._process.kill()
            self.host_peak = max(self.host_peak, measure.host_peak(status))
            time.sleep(POLL_S)
        return code if code >= 0 else 128 - code


def _leave_failure(
    stage: StagePaths, job_id: str, rank: int, code: int, killed: str | None
) -> None:
    """Say for a trainer that died without a word what became of it."""
    path = attempts.failure_path(stage.attempts, job_id, rank)
    if path.exists() or code <= 128:
        return
    kind: attempts.Blame = "program"
    if killed is not None:
        if attempts.failures(stage.attempts, job_id):
            return
    else:
        kind = "killed"
        number = code - 128
        killed = f"the trainer of rank {rank} was killed by signal {number}"
        if number == signal.SIGKILL:
            killed += ", as happens when host memory runs out"
    files.write_json(path, attempts.Failure(rank, killed, traceback="", kind=kind))


def _receipt(
    receipt: attempts.Attempt, stage: StagePaths, code: int, signals: _Signals, host_peak: int
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
    # Where a rank is killed, the others fail for want of it, and say so sooner.
    first = next((f for f in found if f.kind == "killed"), found[0] if found else None)
    measured = measurement.read(stage.attempts, receipt.job_id)
    peaks = measured.peak_bytes if measured is not None else {}
    return replace(
        receipt,
        ended=time.time(),
        outcome=outcome,
        exit_code=code,
        failure=first if outcome != "complete" else None,
        peak_bytes=peaks | {"host": max(host_peak, peaks.get("host", 0))},
        measured=measured,
    )
