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

from launcher.errors import LauncherError
from launcher.memory.stack import grows
from launcher.plan.document import plan_from_json
from launcher.plan.observe import observe
from launcher.plan.types import Plan
from launcher.recipe.types import Stage
from launcher.records import attempts, complete, files, journal, ledger, measurement, serving
from launcher.records.failures import FailureClass
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import measure, network, orphan, scratch, secrets, trust
from launcher.worker.outcome import FAILED, STOPPED, SUPERSEDED, USER_ERROR
from launcher.worker.signals import Signals
from launcher.worker.stop import STOP_SIGNALS
from launcher.worker.vllm import client, serve

POLL_S = 0.2
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    exit_code: int
    requeue: bool
    """Whether the job should go back into the queue: it was told to stop by somebody else than
    `launcher cancel`, and a checkpoint is there to go on from."""


def supervise(
    run: str,
    stage: str,
    token: str,
    job_id: str,
    deserted: Callable[[], bool],
    restarts: int = 0,
) -> Ended:
    """Run one attempt at `stage` on this rank; the rank is read from RANK as torch does.

    `deserted` says whether whoever started this job is gone, so that the job must end too;
    `restarts`: how often the scheduler had started this job before.
    """
    os.umask(0o077)
    signals = Signals()
    signals.install()
    paths = RunPaths(Path(run))
    rank = int(os.environ["RANK"])
    stage_paths = paths.stage(stage)
    start = serving.Start(token, job_id, restarts)
    plan = plan_from_json(paths.plan.read_text())
    planned = plan.stage(stage)
    served = planned.allocation.server_gpus > 0
    # The server's tasks come after the trainers' and are not of their world.
    world = planned.allocation.processes if served else int(os.environ["WORLD_SIZE"])
    receipt = attempts.Attempt(
        number=0,
        token=token,
        job_id=job_id,
        host=platform.node(),
        processes=world,
        started=time.time(),
        restarts=restarts,
    )
    if (complete.read(stage_paths)) is not None:
        print(f"stage {stage} is complete already", flush=True)
        return Ended(0, requeue=False)
    if rank == 0:
        receipt = attempts.start(stage_paths.attempts, receipt)
    refusal = _refusal(paths, plan, stage, token)
    if refusal is not None:
        print(refusal.failure.message if refusal.failure else refusal.outcome, flush=True)
        if rank == 0:
            attempts.finish(
                stage_paths.attempts,
                replace(receipt, ended=time.time(), **vars(refusal)),
            )
        return Ended(refusal.exit_code, requeue=False)
    variables = dict(environment(plan, stage))
    if rank >= world:
        task = serve.Task(paths, plan, planned, start, rank, variables)
        code = serve.run(task, signals, deserted)
        if code:
            _blame_server(stage_paths, start, _Ran(code, lost="the server failed"), signals)
        return Ended(code, requeue=False)
    words = (run, stage, token, job_id)
    if served:
        at = client.Place(stage_paths, planned, start, rank)
        ran = _train_served(words, variables, at, signals, deserted)
    else:
        ran = _train(words, variables, signals, deserted)
    code = ran.code
    if code not in (0, STOPPED):
        _leave_failure(stage_paths, job_id, rank, ran)
        if world > 1 or served:
            # The others' failures: which came first tells why this rank failed.
            time.sleep((5 if served else 2) * POLL_S)
    failed = bool(attempts.failures(stage_paths.attempts, job_id))
    mine = receipt if rank == 0 else _open_receipt(stage_paths, token, job_id)
    # Slurm ends the whole job when one rank fails, and rank 0 with it: whoever knows writes it.
    if mine is not None and (rank == 0 or failed):
        finished = _receipt(mine, stage_paths, ran, signals)
        attempts.finish(stage_paths.attempts, finished)
        _share(plan, stage, finished)
    return Ended(code, requeue=code == STOPPED and not failed and not _cancelled(paths, stage))


def _blame_server(stage: StagePaths, start: serving.Start, ran: _Ran, signals: Signals) -> None:
    """Write into the receipt of this start that the server failed, whoever wrote there before."""
    for receipt in attempts.read(stage.attempts):
        if start.is_of(receipt):
            ended = receipt if receipt.outcome else _receipt(receipt, stage, ran, signals)
            failure = _first(receipt, attempts.failures(stage.attempts, start.job_id))
            attempts.finish(stage.attempts, replace(ended, failure=failure))


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
    failed: FailureClass | None = None


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
    distrusted = trust.refusal(paths, plan, stage)
    if distrusted is not None:
        failed, words = distrusted
        failure = attempts.Failure(rank=0, message=words, traceback="", kind="user")
        return _Refusal("error", USER_ERROR, failure, failed)
    without = serve.missing(plan.stage(stage), platform.node())
    if without is not None:
        failure = attempts.Failure(rank=0, message=without, traceback="", kind="user")
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


@dataclass(frozen=True)
class _Ran:
    """What became of the trainer of this rank."""

    code: int
    """Its exit code, as a shell would tell it (128 + signal)."""
    killed: str | None = None
    """Why this supervisor killed it, or did not start it."""
    lost: str | None = None
    """Why the stage's server failed."""
    host_peak: int = 0
    """Largest resident set that was seen of it, in bytes: all there is of one that was killed."""


def _train_served(
    words: tuple[str, str, str, str],
    env: Mapping[str, str],
    at: client.Place,
    signals: Signals,
    deserted: Callable[[], bool],
) -> _Ran:
    """Train once the stage's server is ready, for as long as it does not fail."""
    server = client.wait(at, lambda: signals.now or deserted())
    if server is None:
        return _Ran(_KILLED, killed=_why(signals))
    if server.state == "failed":
        return _Ran(FAILED, lost=server.reason)
    own = client.variables(at, server, env)
    return _train(words, {**env, **own}, signals, deserted, client.lost(at))


def _train(
    words: tuple[str, str, str, str],
    env: Mapping[str, str],
    signals: Signals,
    deserted: Callable[[], bool],
    lost: Callable[[], str | None] = lambda: None,
) -> _Ran:
    """Run the trainer process of this rank to its end. `words`: run, stage, token, job id."""
    # It starts with the signals blocked, and takes them once it has a handler: a signal that
    # came while Python starts would end it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "launcher.worker.train", *words],
            env={**env, orphan.PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    killed: str | None = None
    without: str | None = None
    told, peak = False, 0
    status = Path(f"/proc/{process.pid}/status")
    while (code := process.poll()) is None:
        if signals.stop and not told:
            # One signal, whatever it was for this supervisor.
            process.send_signal(signal.SIGUSR2)
            told = True
        if killed is None and without is None:
            without = lost()
            killed = _why(signals) if signals.now or deserted() else None
            if killed is not None or without is not None:
                process.kill()
        peak = max(peak, measure.host_peak(status))
        time.sleep(POLL_S)
    if without is not None:
        return _Ran(FAILED, lost=without, host_peak=peak)
    return _Ran(code if code >= 0 else 128 - code, killed, host_peak=peak)


def _why(signals: Signals) -> str:
    if signals.now:
        return "its time was up before it could stop"
    return "what had started it was ended"


def _leave_failure(stage: StagePaths, job_id: str, rank: int, ran: _Ran) -> None:
    """Say for a trainer that died without a word what became of it."""
    path = attempts.failure_path(stage.attempts, job_id, rank)
    if path.exists() or (ran.code <= 128 and ran.lost is None):
        return
    kind: attempts.Blame = "program"
    killed = ran.killed or ran.lost
    if killed is not None:
        if attempts.failures(stage.attempts, job_id):
            return
    else:
        kind = "killed"
        number = ran.code - 128
        killed = f"the trainer of rank {rank} was killed by signal {number}"
        if number == signal.SIGKILL:
            killed += ", as happens when host memory runs out"
    files.write_json(path, attempts.Failure(rank, killed, traceback="", kind=kind))


def _receipt(
    receipt: attempts.Attempt, stage: StagePaths, ran: _Ran, signals: Signals
) -> attempts.Attempt:
    outcome: attempts.Outcome
    code = ran.code
    if code == 0:
        outcome = "complete"
    elif code == STOPPED:
        outcome = "stopped"
    elif signals.stop and ran.lost is None:
        outcome = "terminated"
    elif code > 128:
        outcome = "killed"
    else:
        outcome = "error"
    first = _first(receipt, attempts.failures(stage.attempts, receipt.job_id))
    measured = measurement.read(stage.attempts, receipt.job_id)
    peaks = measured.peak_bytes if measured is not None else {}
    return replace(
        receipt,
        ended=time.time(),
        outcome=outcome,
        exit_code=code,
        failure=first if outcome != "complete" else None,
        peak_bytes=peaks | {"host": max(ran.host_peak, peaks.get("host", 0))},
        measured=measured,
    )


def _first(
    receipt: attempts.Attempt, found: tuple[attempts.Failure, ...]
) -> attempts.Failure | None:
    """What the others failed for want of, though they may have said so sooner: the server, a rank
    that was killed, else what was written first."""
    server = next((each for each in found if each.rank >= receipt.processes), None)
    killed = next((each for each in found if each.kind == "killed"), None)
    return server or killed or (found[0] if found else None)
