"""A job that loses a rank, or in which one hangs, goes on by itself in its allocation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.local.machine import processes_of
from tests.slurm.devcluster import wait_until
from tests.slurm.shell import Shell
from tests.slurm.test_resume import LOAD_S, TINY_SFT, TWO_NODES, weights

STEPS, SAVE = 24, 4
SFT = (f"stages.sft.train.max_steps={STEPS}", f"stages.sft.train.save_steps={SAVE}", *TWO_NODES)


def disturbed(shell: Shell, disturb: Callable[[int], object], *overrides: str) -> str:
    """A run whose second trainer was disturbed amid its steps, and that is complete."""
    run: str = shell.data("submit", TINY_SFT, *SFT, *overrides, "--new")["run"]

    def stage() -> dict[str, Any]:
        found: dict[str, Any] = shell.data("status", run)["stages"][0]
        assert found["state"] in ("pending", "running", "complete"), found
        return found

    def amid_steps() -> bool:
        # Some steps before it saves: a save is given an hour.
        assert stage()["state"] != "complete"
        quiet = time.monotonic() + 5
        while time.monotonic() < quiet:
            done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
            if done > SAVE and done % SAVE == 1:
                return True
            time.sleep(0.02)
        return False

    metrics = shell.runs / run / "stages" / "sft" / "metrics.jsonl"
    wait_until(amid_steps, "some steps", LOAD_S)
    disturb(processes_of(shell.runs / run, "launcher.worker.train")[1])
    wait_until(lambda: stage()["state"] == "complete", "the stage to be complete", 590)
    shell.outcomes(run)
    first, second = shell.attempts(run)
    assert [first["answer"], second["outcome"]] == ["again", "complete"]
    assert [first["round"], second["round"]] == [0, 1]
    # In the same allocation: the job was not started a second time.
    assert first["job_id"] == second["job_id"] and second["restarts"] == 0
    assert second["began_at"] == first["reached"] >= SAVE
    return run


def test_a_rank_that_is_killed_costs_no_allocation_and_no_bit(shell: Shell) -> None:
    run = disturbed(shell, lambda trainer: os.kill(trainer, signal.SIGKILL))
    assert shell.attempts(run)[0]["failed"] == "lost rank"
    undisturbed = shell.data("submit", TINY_SFT, *SFT, "--new", "--wait")["run"]
    assert weights(shell, run) == weights(shell, undisturbed)


@pytest.mark.long
def test_a_rank_that_hangs_is_ended_with_its_world_and_goes_on(shell: Shell) -> None:
    limit = "stages.sft.resources.hang_timeout=10s"
    run = disturbed(shell, lambda trainer: os.kill(trainer, signal.SIGSTOP), limit)
    assert shell.attempts(run)[0]["failed"] == "hang"
