"""The task that serves, with real processes: starts, failures and ends of a stage's server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from launcher.plan.types import Plan
from launcher.recipe.types import Data, Recipe, Resources, Stage
from launcher.records import attempts, files, serving
from launcher.records.paths import RunPaths
from launcher.worker import disk
from launcher.worker.outcome import FAILED
from launcher.worker.signals import Signals
from launcher.worker.vllm import serve
from tests.slurm.devcluster import wait_until
from tests.unit.planning import LAPTOP, plan
from tests.unit.running import every_other_time
from tests.vllm_stand_in import environment

ROOT = Path(__file__).parents[2]
# What a loaded machine may take to start Python.
SECONDS = 60


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment.python(tmp_path_factory.mktemp("environment") / "env")


@dataclass
class Serving:
    """One server's task, run as its supervisor runs it."""

    folder: Path
    faults: dict[str, str] = field(default_factory=dict)
    timeout: float = SECONDS
    signals: Signals = field(default_factory=Signals)
    deserted: bool = False
    code: int | None = None

    @property
    def run(self) -> RunPaths:
        return RunPaths(self.folder / "run")

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def begin(self, restarts: int = 0, rank: int = 1) -> None:
        start = serving.Start("f00d", "41", restarts)
        files.private_folder(self.run.stage("grpo").attempts)
        self.receipt = attempts.start(
            self.run.stage("grpo").attempts,
            attempts.Attempt(0, "f00d", "41", "host", 1, time.time(), restarts=restarts),
        )
        made = planned(self.timeout)
        faults = {f"STAND_IN_{name}": value for name, value in self.faults.items()}
        variables = {
            **os.environ,
            **faults,
            "PYTHONPATH": str(ROOT),
            "STAND_IN_LOG": str(self.log),
            "RANK": "1",
            "WORLD_SIZE": "2",
        }
        task = serve.Task(self.run, made, made.stage("grpo"), start, rank, variables)
        self.start = start
        self.thread = threading.Thread(target=self._serve, args=(task,))
        self.thread.start()

    def _serve(self, task: serve.Task) -> None:
        self.code = serve.run(task, self.signals, lambda: self.deserted)

    def found(self) -> serving.Server | None:
        return serving.read(self.run.stage("grpo"), self.start)

    def ready(self) -> serving.Server:
        wait_until(lambda: self.found() is not None, "a word of the server", SECONDS)
        found = self.found()
        assert found is not None and found.state == "ready", found
        return found

    def over(self) -> None:
        """What rank 0's supervisor does at the end of the attempt."""
        ended = replace(self.receipt, ended=time.time(), outcome="complete", exit_code=0)
        attempts.finish(self.run.stage("grpo").attempts, ended)

    def ended(self, within: float = SECONDS) -> int | None:
        self.thread.join(within)
        assert not self.thread.is_alive()
        return self.code

    def failure(self) -> attempts.Failure:
        """Of the only rank that failed; the trainers are told the same."""
        (failure,) = attempts.failures(self.run.stage("grpo").attempts, self.start.round_key)
        found = self.found()
        assert found is not None and (found.state, found.reason) == ("failed", failure.message)
        return failure


def planned(timeout: float) -> Plan:
    train = {
        "use_vllm": True,
        "vllm_mode": "server",
        "vllm_server_timeout": timeout,
        "max_completion_length": 16,
    }
    stage = Stage(
        "grpo",
        "grpo",
        {"policy": "tiny"},
        global_batch=16,
        dtype="float32",
        data=Data("/data.jsonl", rows=96, max_prompt_tokens=64),
        train=train,
        resources=Resources(time_minutes=10),
    )
    return plan(Recipe("served", (stage,), {}), LAPTOP)


@pytest.fixture
def served(tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setenv(serve.STALL, "2")
    one = Serving(tmp_path)
    yield one
    one.signals.now = True
    one.thread.join(SECONDS)
    environment.kill(environment.processes(one.log))


def test_a_server_that_starts_late_is_ready_late_and_ends_with_the_attempt(served: Serving) -> None:
    served.faults = {"START_S": "1"}
    served.begin()
    url = served.ready().url
    assert url.startswith("http://127.0.0.1:")
    (started,) = environment.events(served.log, "start")
    assert started["argv"][:2] == ["serve", "tiny"]
    assert environment.alive([started["pid"], started["worker"]])
    # A stop is the trainers' business, who need the server for their step.
    served.signals.stop = True
    time.sleep(1)
    assert served.thread.is_alive()
    served.over()
    assert served.ended() == 0
    assert environment.processes(served.log) == []
    assert attempts.failures(served.run.stage("grpo").attempts, served.start.round_key) == ()


def test_a_server_that_dies_before_it_answers_is_the_reason(served: Serving) -> None:
    served.faults = {"START_S": "not a number"}
    served.begin()
    assert served.ended() == FAILED
    failure = served.failure()
    assert failure.message.startswith("the vLLM server ended before it answered (exit code 1)")
    assert "launcher logs grpo --rank 1" in failure.message
    assert failure.kind == "program"
    assert environment.processes(served.log) == []


def test_a_server_that_never_answers_is_given_up(served: Serving) -> None:
    served.faults, served.timeout = {"START_S": "1000"}, 4
    served.begin()
    assert served.ended() == FAILED
    assert "did not answer within 4 s" in served.failure().message
    assert environment.processes(served.log) == []


def test_a_server_that_is_killed_is_told_from_one_that_fails(served: Serving) -> None:
    served.begin()
    served.ready()
    (started,) = environment.events(served.log, "start")
    os.kill(started["pid"], signal.SIGKILL)
    assert served.ended() == FAILED
    failure = served.failure()
    assert "ended while it served (killed by signal 9)" in failure.message
    assert failure.kind == "killed"
    # Its worker went with it.
    assert environment.processes(served.log) == []


def test_a_server_that_stalls_is_ended_though_it_hears_nothing(served: Serving) -> None:
    served.begin()
    served.ready()
    (started,) = environment.events(served.log, "start")
    os.kill(started["pid"], signal.SIGSTOP)
    assert served.ended() == FAILED
    assert "has stalled: no answer for 2 s" in served.failure().message
    assert environment.processes(served.log) == []


def test_a_stubborn_server_ends_with_a_task_that_is_deserted(served: Serving) -> None:
    served.faults = {"STUBBORN": "1"}
    served.begin()
    served.ready()
    served.deserted = True
    assert served.ended() == 0
    assert environment.processes(served.log) == []


def test_what_an_earlier_start_of_the_job_left_is_nobodys_word(served: Serving) -> None:
    """Of a job that is put back into the queue: same id, same token."""
    served.begin()
    first = served.ready()
    served.over()
    assert served.ended() == 0
    served.begin(restarts=1)
    assert served.found() is None
    second = served.ready()
    assert second.url != first.url
    assert served.thread.is_alive()
    served.over()
    assert served.ended() == 0


def test_a_disk_that_does_not_answer_each_time_ends_no_server_and_hides_no_reason(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "AGAIN_S", 0.1)
    monkeypatch.setattr(attempts, "read", every_other_time(attempts.read))
    monkeypatch.setattr(files, "write_json", every_other_time(files.write_json))
    served.begin()
    served.ready()
    (started,) = environment.events(served.log, "start")
    os.kill(started["pid"], signal.SIGKILL)
    assert served.ended() == FAILED
    assert served.failure().kind == "killed"


def test_tasks_that_hold_the_servers_gpus_wait_for_the_end(served: Serving) -> None:
    served.begin(rank=2)
    time.sleep(1)
    assert served.thread.is_alive()
    served.over()
    assert served.ended() == 0
    assert not served.log.exists()


def test_a_supervisor_that_is_killed_takes_the_server_with_it(
    tmp_path: Path, interpreter: Path
) -> None:
    log = tmp_path / "log.jsonl"
    words = [str(interpreter), "-m", "launcher.worker.guard", "5", str(interpreter), "-m"]
    words += ["vllm.entrypoints.cli.main", "serve", "tiny", "--host=127.0.0.1", "--port=0"]
    script = (
        "import subprocess, sys\nsubprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()\n"
    )
    supervisor = subprocess.Popen(
        [str(interpreter), "-c", script, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STAND_IN_LOG": str(log)},
    )
    try:
        wait_until(lambda: bool(environment.events(log, "serving")), "a server", SECONDS)
        assert len(environment.processes(log)) == 2
        (started,) = environment.events(log, "start")
        guard = int(Path(f"/proc/{started['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        # What Slurm may send to every process of a job; the server is asked to end by one word.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            os.kill(guard, number)
        os.kill(started["pid"], signal.SIGUSR2)
        time.sleep(1)
        assert len(environment.processes(log)) == 2
        supervisor.kill()
        wait_until(lambda: not environment.processes(log), "its end", SECONDS)
    finally:
        supervisor.kill()
        supervisor.wait()
        environment.kill(environment.processes(log))


def test_without_vllm_a_stage_that_asks_for_it_says_so_before_it_starts() -> None:
    found = serve.missing(planned(60).stage("grpo"), "node-7")
    assert found is not None
    assert found.startswith("stages.grpo.train.use_vllm: vLLM is not installed for")
    assert "on node-7" in found and "pip install" in found
