"""The chain on a machine without Slurm: a process of its own, under the same commands."""

from __future__ import annotations

import json
import os
import platform
import pty
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.local.machine import ENDLESS, LOAD_S, RECIPES, TINY_SFT, LocalShell
from tests.slurm.devcluster import wait_until
from tests.slurm.shell import LAUNCHER

SAVES_NOTHING = "stages.sft.train.save_steps=100000"
CHAIN = "launcher.run.local_chain"
SUPERVISOR = "launcher.scheduler.entry"
TRAINER = "launcher.worker.train"
# "Within seconds": what an end may take, a step and a checkpoint included.
SECONDS = 15


def two_stages(folder: Path) -> str:
    """A recipe of two short stages."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""
launcher: 1
name: two
extends: ["{RECIPES}/tiny/sft"]
stages:
  sft: {{train: {{max_steps: 4}}, env: {{ONLY_OF_SFT: "1"}}}}
  rm:
    method: reward
    model: stage:sft
    data: {{path: "{RECIPES}/tiny/data/preference.jsonl"}}
    global_batch: 16
    train: {{max_steps: 4, max_length: 64}}
"""
    )
    return str(recipe)


def test_a_chain_outlives_its_terminal_and_each_command_finds_it(shell: LocalShell) -> None:
    recipe = two_stages(shell.home)
    terminal, end = pty.openpty()
    user = subprocess.Popen(
        [LAUNCHER, "submit", recipe, "--yes", "--wait"],
        env=shell.env,
        cwd=shell.home,
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    wait_until(lambda: bool(shell.data("list") if shell.runs.is_dir() else []), "a run", LOAD_S)
    run = shell.data("list")[0]["run"]
    wait_until(lambda: bool(shell.processes(run, TRAINER)), "a trainer", LOAD_S)
    os.killpg(user.pid, signal.SIGHUP)
    os.killpg(user.pid, signal.SIGKILL)
    os.close(terminal)
    user.wait()
    states = [stage["state"] for stage in shell.data("status")["stages"]]
    assert states == ["running", "pending"]
    assert {stage["action"] for stage in shell.data("submit", recipe)["stages"]} == {"queued"}

    shell.run("submit", recipe, "--wait")
    assert [stage["state"] for stage in shell.data("status")["stages"]] == ["complete"] * 2
    assert [stage["attempts"] for stage in shell.data("status")["stages"]] == [1, 1]
    assert "step 4/4" in shell.run("logs", "sft")
    assert [listed["state"] for listed in shell.data("list")] == ["complete"]
    assert {stage["action"] for stage in shell.data("submit", recipe)["stages"]} == {"complete"}
    wait_until(lambda: not shell.processes(run), "every process to end", SECONDS)


def test_the_same_submit_twice_at_once_starts_one_chain(shell: LocalShell) -> None:
    words = ("submit", TINY_SFT, "stages.sft.train.max_steps=2", "--wait", "--json")
    both = [shell.start(*words), shell.start(*words)]
    answers = [process.communicate(timeout=LOAD_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    first, second = (json.loads(answer)["data"] for answer in answers)
    assert first["run"] == second["run"]
    assert {s["action"] for s in first["stages"] + second["stages"]} == {"started", "queued"}
    assert shell.stage(first["run"])["attempts"] == 1


def test_cancel_ends_every_process_of_one_run_and_resume_goes_on(shell: LocalShell) -> None:
    one = shell.data("submit", TINY_SFT, ENDLESS, "--new")["run"]
    other = shell.data("submit", TINY_SFT, ENDLESS, "--new")["run"]
    shell.wait_for_steps(one, 5)
    shell.wait_for_steps(other, 1)
    assert shell.data("cancel", one)["stages"] == ["sft"]
    assert shell.processes(one) == []
    assert shell.data("status", one)["state"] == "cancelled"
    assert len(shell.processes(other)) == 4
    assert shell.data("status", other)["state"] == "running"

    # While a model is loaded there is nothing to save, and the end comes at once.
    shell.run("resume", one)
    wait_until(lambda: bool(shell.processes(one, TRAINER)), "a trainer", LOAD_S)
    assert shell.data("cancel", one)["stages"] == ["sft"]
    assert shell.processes(one) == []
    shell.run("resume", one)
    shell.wait_for_steps(one, 8)
    assert shell.stage(one)["attempts"] == 3
    # A file system that hosts share shows its lock on all of them; a pid is of one of them.
    holder = shell.runs / one / "local.lock"
    here = holder.read_text()
    holder.write_text(here.replace(platform.node(), "elsewhere"))
    refused = shell.start("cancel", one)
    assert "runs on elsewhere" in refused.communicate(timeout=LOAD_S)[1]
    assert refused.returncode == 1
    assert shell.processes(one, CHAIN)
    holder.write_text(here)
    # The first attempt left a checkpoint of its last step.
    assert shell.attempts(one)[0]["outcome"] == "stopped"
    steps = shell.steps(one)
    assert steps == list(range(1, len(steps) + 1))
    shell.run("cancel", one)
    shell.run("cancel", other)


def test_nothing_lives_on_when_the_process_of_the_chain_is_killed(shell: LocalShell) -> None:
    run = shell.data("submit", TINY_SFT, ENDLESS)["run"]
    shell.wait_for_steps(run, 5)
    for pid in shell.processes(run, CHAIN):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not shell.processes(run), "every process to end", SECONDS)
    stage = shell.stage(run)
    assert stage["state"] == "failed" and stage["reason"]
    again = shell.data("submit", TINY_SFT, ENDLESS)
    assert [again["run"], again["stages"][0]["action"]] == [run, "started"]
    shell.wait_for_steps(run, 8)
    shell.run("cancel", run)
    # The tiny recipe saves every four steps: none was lost, and those of a checkpoint done once.
    steps = shell.steps(run)
    assert set(steps) == set(range(1, max(steps) + 1))
    assert [steps.count(step) for step in (1, 2, 3, 4)] == [1, 1, 1, 1]
    # Where steps were done twice, the first of them is the one after a checkpoint.
    again = [after for before, after in pairwise(steps) if after <= before]
    assert len(again) <= 1 and all(step % 4 == 1 for step in again)
    assert len(shell.attempts(run)) == 2


@pytest.mark.long
def test_a_supervisor_that_is_killed_takes_its_trainer_with_it_and_the_chain_goes_on(
    shell: LocalShell,
) -> None:
    run = shell.data("submit", TINY_SFT, "stages.sft.train.max_steps=40")["run"]
    shell.wait_for_steps(run, 5)
    for pid in shell.processes(run, SUPERVISOR):
        os.kill(pid, signal.SIGKILL)
    shell.wait_for_state(run, "complete")
    assert shell.outcomes(run) == ["killed", "complete"]
    first, second = shell.attempts(run)
    assert first["failed"] == "node"
    assert second["began_at"] == first["reached"] >= 4


def test_a_stage_that_is_warned_of_its_time_limit_goes_on(shell: LocalShell) -> None:
    # No checkpoint but that of the stop.
    run = shell.data("submit", TINY_SFT, "stages.sft.train.max_steps=80", SAVES_NOTHING)["run"]
    shell.wait_for_steps(run, 3)
    for supervisor in shell.processes(run, SUPERVISOR):
        os.kill(supervisor, signal.SIGUSR2)
    shell.wait_for_state(run, "complete")
    assert shell.outcomes(run) == ["stopped", "complete"]
    assert shell.steps(run) == list(range(1, 81))


@pytest.mark.long
def test_a_time_limit_makes_another_job_of_the_rest(shell: LocalShell) -> None:
    # Half a minute is left for the checkpoint at a limit of one.
    limit = ("stages.sft.resources.time=1m", SAVES_NOTHING)
    run = shell.data("submit", TINY_SFT, "stages.sft.train.max_steps=600", *limit)["run"]
    shell.wait_for_state(run, "complete", timeout=590)
    ended = shell.outcomes(run)
    assert len(ended) >= 2
    assert ended == ["stopped"] * (len(ended) - 1) + ["complete"]
    assert shell.steps(run) == list(range(1, 601))
