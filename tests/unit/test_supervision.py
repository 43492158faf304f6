"""What a supervisor sees of its trainer and of the other ranks, and when it ends it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.types import Plan
from launcher.recipe.types import Data
from launcher.records import attempts, journal, rounds
from launcher.records.paths import RunPaths
from launcher.run import folder
from launcher.worker import child, disk, heartbeat, host_memory
from launcher.worker.deadlines import TERM_S, Silence
from launcher.worker.outcome import USER_ERROR
from launcher.worker.signals import Signals
from launcher.worker.stop import Leave, Stop
from launcher.worker.supervision import follow, lead, rank, replaced
from launcher.worker.supervision.job import Job
from launcher.worker.supervision.refusal import Refusal
from launcher.worker.supervision.replaced import Replaced
from tests.unit.planning import LAPTOP, pinned, plan, recipe, stage
from tests.unit.running import every_other_time

TASK = {
    "SUBMITIT_EXECUTOR": "slurm",
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NODEID": "0",
}
"""What Slurm tells the only task of a job."""

BEATS = """
import sys
from launcher.worker.heartbeat import beat
for phase in sys.argv[1:]:
    beat(phase)
"""


def pace(*phases: str) -> tuple[str, float]:
    listener = heartbeat.Listener()
    time.sleep(0.2)
    process = subprocess.Popen(
        [sys.executable, "-c", BEATS, *phases],
        env={**os.environ, heartbeat.PIPE: str(listener.write)},
        pass_fds=(listener.write,),
    )
    listener.started()
    assert process.wait(timeout=60) == 0
    silence = listener.silence()
    listener.close()
    return listener.pace, silence


def test_steps_have_a_pace_once_one_is_done_and_loading_and_saving_have_none() -> None:
    loading, silence = pace("load", "train", "update")
    assert loading == "slow" and silence < 0.1
    assert pace("load", "update", "whole step", "train")[0] == "steps"
    assert pace("whole step", "save")[0] == "slow"
    assert pace()[1] >= 0.2


def test_who_is_not_supervised_gives_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat.PIPE, raising=False)
    heartbeat.beat("load")


def watch(signals: Signals | None = None, **keywords: Any) -> child.Watch:
    given: dict[str, Any] = {
        "signals": signals or Signals(),
        "silence": Silence(10, 100),
        "signal_lead_s": 120,
        "memory_limit": 0,
        "deserted": lambda: False,
        **keywords,
    }
    return child.Watch(**given)


def test_a_trainer_is_ended_when_it_is_silent_for_longer_than_its_pace_allows() -> None:
    assert child.reason(watch(), 9, "steps", None)[0] is None
    assert child.reason(watch(), 11, "steps", None)[0] == "hang"
    assert child.reason(watch(), 11, "slow", None)[0] is None
    assert child.reason(watch(silence=Silence(None, None)), 1e9, "steps", None)[0] is None


SUSPENDED = """
import subprocess, sys
from launcher.worker import child, heartbeat
from launcher.worker.deadlines import Silence
from launcher.worker.signals import Signals
listener = heartbeat.Listener()
beats = "import os, time\\nwhile True:\\n os.write(%d, b's'); time.sleep(0.2)" % listener.write
trainer = subprocess.Popen([sys.executable, "-c", beats], pass_fds=(listener.write,))
listener.started()
print(trainer.pid, flush=True)
watch = child.Watch(Signals(), Silence(4, 4), 120, 0, lambda: False)
print(child._watched(trainer, watch, listener).killed, flush=True)
"""


def test_a_job_that_is_suspended_does_not_hang_and_one_that_hangs_later_is_ended() -> None:
    command = [sys.executable, "-c", SUSPENDED]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    trainer = int(supervisor.stdout.readline())
    time.sleep(1)
    for number, pause_s in ((signal.SIGSTOP, 6), (signal.SIGCONT, 2)):
        # First the supervisor goes on, which has seen its trainer's last sign of life.
        both = (trainer, supervisor.pid) if number == signal.SIGSTOP else (supervisor.pid, trainer)
        for pid in both:
            os.kill(pid, number)
            time.sleep(0.5)
        time.sleep(pause_s)
    assert supervisor.poll() is None
    os.kill(trainer, signal.SIGSTOP)
    assert supervisor.communicate(timeout=60)[0].strip() == "hang"


def test_a_trainer_may_go_on_for_seconds_when_its_world_has_lost_a_rank() -> None:
    assert child.reason(watch(), 0, "steps", 1)[0] is None
    assert child.reason(watch(), 0, "steps", child.LOST_RANK_S + 1)[0] == "others"


def test_the_time_to_stop_is_that_of_the_nearer_end() -> None:
    now = time.monotonic()
    warned = Signals(stop=True, warned_at=now - 60)
    assert child.reason(watch(warned), 0, "steps", None)[0] is None
    termed = Signals(stop=True, termed_at=now - TERM_S - 1)
    assert child.reason(watch(termed), 0, "steps", None)[0] == "time"
    both = Signals(stop=True, warned_at=now - 106, termed_at=now)
    assert child.reason(watch(both), 0, "steps", None)[0] == "time"
    assert child.reason(watch(Signals(now=True)), 0, "steps", None)[0] == "time"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_that_comes_before_the_supervisor_has_its_handlers_waits_for_them(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher.scheduler.entry", str(tmp_path), "sft", "f00d"],
        env={**os.environ, **TASK},
        stderr=subprocess.PIPE,
        text=True,
    )
    status = Path(f"/proc/{process.pid}/status")

    def waits() -> bool:
        blocked = next(line for line in status.read_text().splitlines() if "SigBlk" in line)
        return bool(int(blocked.split()[1], 16) & 1 << (number - 1))

    while not waits():
        assert process.poll() is None
    process.send_signal(number)
    words = process.communicate(timeout=60)[1]
    # It came as far as the plan that is not there.
    assert process.returncode == 1 and "plan.json" in words


def test_a_word_is_heard_once_it_is_whole_and_by_its_round_alone(tmp_path: Path) -> None:
    first, second = rounds.key("7", 0, 0, "a1"), rounds.key("7", 0, 1, "a1")
    path = rounds.ending_path(tmp_path, first, 1)
    assert rounds.heard(path, rounds.Ending) is None
    rounds.say(path, rounds.Ending(1, 137, killed="hang"))
    rounds.say(rounds.ending_path(tmp_path, first, 0), rounds.Ending(0, 1))
    assert [ending.rank for ending in rounds.endings(tmp_path, first)] == [0, 1]
    assert rounds.endings(tmp_path, second) == ()
    # Of another submission, to which Slurm gave the id again.
    assert rounds.endings(tmp_path, rounds.key("7", 0, 0, "b2")) == ()
    path.write_text('{"rank"')
    assert rounds.heard(path, rounds.Ending) is None


def test_a_process_near_its_limit_may_have_met_it() -> None:
    assert host_memory.nearly_all(95, 100)
    assert not host_memory.nearly_all(50, 100)
    assert not host_memory.nearly_all(50, 0)
    assert host_memory.kills() >= 0


@pytest.fixture
def stop() -> Any:
    before = [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)]
    made = Stop()
    made.listen()
    yield made
    for number, handler in zip((signal.SIGUSR2, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


def test_where_there_is_nothing_to_save_a_signal_leaves_at_once(stop: Stop) -> None:
    stop.leave_at_once()
    with pytest.raises(Leave):
        signal.raise_signal(signal.SIGUSR2)
    # Whoever swallows it is left alone until there is something to save.
    signal.raise_signal(signal.SIGUSR2)
    with pytest.raises(Leave):
        stop.hold()


def test_amid_steps_a_signal_sets_the_flag_alone(stop: Stop) -> None:
    stop.hold()
    signal.raise_signal(signal.SIGTERM)
    assert stop.told
    with pytest.raises(Leave):
        stop.leave_at_once()


def begun(folder: Path, restarts: int) -> attempts.Attempt:
    now = time.time()
    return attempts.start(
        folder,
        attempts.Attempt(
            number=0,
            token="t",
            job_id="7",
            host="n",
            processes=1,
            started=now,
            restarts=restarts,
        ),
    )


@pytest.mark.parametrize("first", ["ends the receipt that it finds open", "begins its own"])
def test_a_start_that_slurm_gave_up_sees_that_a_later_one_has_taken_over(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaced, "REPLACED_S", 0)
    before = begun(tmp_path, 0)
    attempts.finish(tmp_path, replace(before, ended=time.time(), outcome="stopped"))
    own = begun(tmp_path, 1)
    asks = Replaced(tmp_path, own)
    assert not asks()
    if first == "begins its own":
        begun(tmp_path, 2)
    else:
        attempts.finish(tmp_path, replace(own, ended=time.time(), outcome="error"))
    assert asks()


def test_looking_whether_another_start_took_over_reads_no_receipts_for_a_while(
    tmp_path: Path,
) -> None:
    asks = Replaced(tmp_path, begun(tmp_path, 0))
    begun(tmp_path, 1)
    assert not asks()


# Refusals

SUPERVISES = """
import sys
from launcher.worker.supervisor import supervise
sys.exit(supervise(sys.argv[1], "sft", "f00d", "7", lambda: False).exit_code)
"""


def submitted(root: Path, made: Plan) -> RunPaths:
    run, _ = folder.create(root / "runs", made, {"name": "chain"}, new=False)
    for kind in ("intent", "submitted"):
        stage = made.stages[0].name
        journal.append(run.journal, journal.Event(kind, time.time(), stage, "f00d", "7"))
    return run


def test_a_rank_that_must_not_train_is_heard_before_the_job_ends(tmp_path: Path) -> None:
    """On one of two nodes the file of secrets can be read by others."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    sft = stage("sft", "tiny", resources=pinned(gpus=2))
    made = plan(recipe(sft), LAPTOP)
    sft = replace(sft, models={"model": str(model)}, data=Data(str(rows)))
    run = submitted(tmp_path, replace(made, stages=(replace(made.stages[0], stage=sft),)))
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        (home / ".config" / "launcher").mkdir(parents=True)
    secrets = homes[1] / ".config" / "launcher" / "secrets.env"
    secrets.write_text("HF_TOKEN=hf_secret\n")
    secrets.chmod(0o644)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SUPERVISES, run.root],
            env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank, "HOME": str(home)},
        )
        for rank, home in zip("01", homes, strict=True)
    ]
    try:
        assert [each.wait(timeout=120) for each in ranks] == [86, 86]
    finally:
        for each in ranks:
            each.kill()
    (receipt,) = attempts.read(run.stage("sft").attempts)
    assert (receipt.outcome, receipt.failed, receipt.answer) == ("error", "user", "end")
    assert receipt.failure and receipt.failure.rank == 1
    assert "secrets.env" in receipt.failure.message and platform.node() in receipt.failure.message


def test_a_secrets_file_that_others_may_read_by_now_is_told_as_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(recipe(stage("sft", "tiny")), LAPTOP)
    run = submitted(tmp_path, made)
    stop = Signals()
    job = Job(run, made, made.stages[0], "f00d", "7", 0, 0, 1, stop, lambda: False, time.time())
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets = tmp_path / ".config" / "launcher" / "secrets.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("HF_TOKEN=hf_secret\n")
    secrets.chmod(0o644)

    assert rank.run(job, "7", rounds.Opening(rung=0, port=29500)).code == USER_ERROR

    (failure,) = attempts.failures(job.stage.attempts, "7")
    assert failure.kind == "user" and "secrets.env" in failure.message


@pytest.mark.parametrize("steady", [True, False])
def test_a_server_that_must_not_start_is_heard_before_the_job_ends(
    tmp_path: Path, steady: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not steady:
        monkeypatch.setattr(disk, "AGAIN_S", 0.1)
        monkeypatch.setattr(attempts, "read", every_other_time(attempts.read))
    train = {"num_generations": 8, "use_vllm": True, "vllm_mode": "server"}
    models = {"policy": "Qwen/Qwen2.5-0.5B"}
    given = replace(
        stage(), name="grpo", method="grpo", models=models, train=train,
        resources=pinned(gpus=1, server_gpus=1, gpu="h100"),
    )  # fmt: skip
    made = plan(recipe(given))
    run = submitted(tmp_path, made)
    trainer, server = (
        Job(
            run, made, made.stages[0], "f00d", "7", 0, rank, 1,
            Signals(), lambda: False, time.time(),
        )
        for rank in range(2)
    )  # fmt: skip
    failure = attempts.Failure(0, "vLLM is not installed", traceback="", kind="user")
    refused = Refusal("error", 86, failure, "user")
    with ThreadPoolExecutor(1) as pool:
        serves = pool.submit(follow.refuse_policy, server, refused)
        ended = lead.lead(trainer, 0)
        assert serves.result(timeout=60) == 86
    assert ended.exit_code != 0 and not ended.requeue
    monkeypatch.undo()
    (receipt,) = attempts.read(run.stage("grpo").attempts)
    assert (receipt.failed, receipt.answer) == ("user", "end")
    assert receipt.failure and receipt.failure.rank == 1
    assert "vLLM is not installed" in receipt.failure.message
