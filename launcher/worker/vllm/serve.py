"""A task that serves: it starts the server, says when it is ready, watches it, and ends it.

The server's life is one start of the job: from before the training, which waits for it, to the
attempt's receipt, whatever that says. A signal to stop is the trainers' business, who need the
server for the step that they finish.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import stage_of
from launcher.recipe.vllm import mode
from launcher.records import attempts, files, serving
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import classify, disk, guard
from launcher.worker.outcome import FAILED
from launcher.worker.signals import Signals
from launcher.worker.vllm import address, command
from launcher.worker.vllm.health import healthy

START_S = 900.0
"""How long a server may take to answer, where `train.vllm_server_timeout` does not say: 72 billion
parameters from a shared file system take minutes."""
STALL_S = 300.0
"""How long it may leave `/health` without an answer."""
STALL = "LAUNCHER_VLLM_STALL_S"
"""The variable of the cluster's profile that says otherwise."""
_GRACE_S = 5.0
"""Between the word that the server shall end, and its end."""
_EVERY_S = 2.0
_ANSWER_S = 5.0
_POLL_S = 0.5


def missing(stage_plan: StagePlan, host: str) -> str | None:
    """Why the stage's vLLM cannot run in this environment; None: it can, or the stage has none."""
    if mode(stage_plan.stage) is None or importlib.util.find_spec("vllm") is not None:
        return None
    return (
        f"stages.{stage_plan.name}.train.use_vllm: vLLM is not installed for {sys.executable} on"
        f" {host}; install it there (`pip install 'trl[vllm]'`), or leave `use_vllm` out"
    )


def start_s(stage_plan: StagePlan) -> float:
    """Seconds that the stage's server may take until it answers."""
    return float(stage_plan.stage.train.get("vllm_server_timeout") or START_S)


@dataclass(frozen=True)
class Task:
    """One task of a job that is not a trainer's."""

    run: RunPaths
    plan: Plan
    stage_plan: StagePlan
    start: serving.Start
    rank: int
    environment: Mapping[str, str]
    """Of the stage's trainers."""

    @property
    def stage(self) -> StagePaths:
        return self.run.stage(self.stage_plan.name)

    @property
    def outcome(self) -> attempts.Outcome | None:
        """How the attempt has ended; None: it has not, or the disk does not say so now."""
        with suppress(OSError):
            return self.start.outcome(self.stage)
        return None

    @property
    def serves(self) -> bool:
        """Whether it is the server's. The others hold its GPUs."""
        return self.rank == self.stage_plan.allocation.processes

    @property
    def model(self) -> str:
        """What the server loads: the policy, as `from_pretrained` takes it."""
        reference = self.stage_plan.stage.models["policy"]
        upstream = stage_of(reference)
        if upstream is None:
            return reference
        return self.plan.stage(upstream).stage.use or str(self.run.stage(upstream).model)


def run(task: Task, signals: Signals, deserted: Callable[[], bool]) -> int:
    """Serve until the attempt is over, or hold the server's GPUs until then: a task that ended
    before the others would start Slurm's clock for those (`WaitTime`). The exit code."""

    def over() -> bool:
        return signals.now or deserted()

    if not task.serves:
        while not (task.outcome or over()):
            time.sleep(2 * _POLL_S)
        return 0
    place = attempts.failure_path(task.stage.attempts, task.start.round_key, task.rank)
    kind: attempts.Kind = "program"
    try:
        disk.waited_out(lambda: place.unlink(missing_ok=True), over)
        server = _Server(task)
        try:
            reason = server.watch(over)
        finally:
            server.end(now=signals.now)
        if server.code == 128 + signal.SIGKILL:
            kind = "killed"
    except OSError as error:
        reason = f"the vLLM server could not be started: {error}"
        if classify.of_the_disk(error):
            kind = "disk"
    if reason is None:
        return 0
    print(reason, file=sys.stderr, flush=True)
    failure = attempts.Failure(task.rank, reason, traceback="", kind=kind)
    failed = serving.Server(task.start, "failed", reason=reason)
    disk.waited_out(lambda: files.write_json(place, failure), over)
    disk.waited_out(lambda: serving.write(task.stage, failed), over)
    return FAILED


class _Server:
    """The server's processes, by their guard."""

    def __init__(self, task: Task) -> None:
        self._task = task
        stage_plan, allocation = task.stage_plan, task.stage_plan.allocation
        own = address.own(allocation.all_nodes)
        port = address.free_port(own)
        gpus = allocation.server_gpus
        words = command.argv(
            sys.executable,
            stage_plan.stage,
            task.model,
            address=own,
            port=port,
            gpus=gpus,
            trust_remote_code=task.plan.trust_remote_code,
        )
        variables = command.variables(
            task.environment,
            address=own,
            gpus=gpus,
            first=0 if allocation.server_apart else allocation.tasks_per_node,
            on_gpus=allocation.gpu is not None,
        )
        self.url = f"http://{own}:{port}"
        self.code: int | None = None
        """Its exit code, as a shell would tell it, where it ended by itself."""
        print(f"vLLM server at {self.url}: {words[3:]}", flush=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", guard.__name__, str(_GRACE_S), *words],
            env=variables,
            stdin=subprocess.PIPE,
        )

    def watch(self, over: Callable[[], bool]) -> str | None:
        """Return when the attempt is done or nobody waits for it (None: it is `over`), or when the
        server has failed: why, in one sentence. Raises OSError where it is ready, and that cannot
        be written down."""
        began = answered = asked = time.monotonic()
        limit = start_s(self._task.stage_plan)
        stall = float(os.environ.get(STALL, STALL_S))
        ready = False
        while True:
            self.code = self._process.poll()
            outcome = self._task.outcome
            # A trainer that fails for want of it may have ended the attempt already.
            if self.code is not None and outcome not in ("complete", "stopped"):
                when = "while it served" if ready else "before it answered"
                return f"the vLLM server ended {when} ({_code(self.code)}); {self._log}"
            if over() or outcome is not None:
                return None
            now = time.monotonic()
            if now - asked >= (_EVERY_S if ready else 2 * _POLL_S):
                if healthy(self.url, _ANSWER_S):
                    answered = time.monotonic()
                    if not ready:
                        ready = True
                        self._say(answered - began, over)
                asked = now = time.monotonic()
            if not ready and now - began > limit:
                return f"the vLLM server did not answer within {limit:g} s; {self._log}"
            if ready and now - answered > stall:
                return f"the vLLM server has stalled: no answer for {stall:g} s; {self._log}"
            time.sleep(_POLL_S)

    def end(self, *, now: bool) -> None:
        """Let go of it: its guard ends it and all that it started. `now`: without waiting for that,
        because whoever started this task does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not now:
            self._process.wait()

    @property
    def _log(self) -> str:
        name, rank = self._task.stage_plan.name, self._task.rank
        return f"`launcher logs {name} --rank {rank}` shows its output"

    def _say(self, seconds: float, over: Callable[[], bool]) -> None:
        print(f"vLLM server ready after {seconds:.0f} s", flush=True)
        ready = serving.Server(self._task.start, "ready", url=self.url)
        disk.waited_out(lambda: serving.write(self._task.stage, ready), over)


def _code(code: int) -> str:
    return f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
