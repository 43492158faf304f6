"""A stage that Slurm stops goes on by itself, and ends with the weights of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slurm.devcluster import DevCluster, wait_until
from tests.slurm.shell import Shell

TINY_SFT = str(Path(__file__).parents[2] / "recipes" / "tiny" / "sft.yaml")
LOAD_S = 240
STEPS = 80
# No checkpoint but that of the stop, so that a stop without one would be seen.
SFT = (f"stages.sft.train.max_steps={STEPS}", "stages.sft.train.save_steps=100000")
TWO_NODES = ("stages.sft.resources.gpus=2", "stages.sft.resources.nodes=2")


def weights(shell: Shell, run: str) -> bytes:
    return (shell.runs / run / "stages" / "sft" / "model" / "model.safetensors").read_bytes()


def undisturbed(shell: Shell, *overrides: str) -> bytes:
    return weights(
        shell, shell.data("submit", TINY_SFT, *SFT, *overrides, "--new", "--wait")["run"]
    )


def disturbed(shell: Shell, disturb: Callable[[str], object], *overrides: str) -> str:
    """A run that ended COMPLETE though `disturb` was called, with its job's id, amid its steps."""
    run: str = shell.data("submit", TINY_SFT, *SFT, *overrides, "--new")["run"]

    def stage() -> dict[str, Any]:
        found: dict[str, Any] = shell.data("status", run)["stages"][0]
        assert found["state"] in ("pending", "running", "complete"), found
        return found

    wait_until(lambda: (stage()["progress"] or {"step": 0})["step"] >= 3, "some steps", LOAD_S)
    disturb(stage()["job_id"])
    wait_until(lambda: stage()["state"] == "complete", "the stage to be complete", LOAD_S)
    assert shell.outcomes(run) == ["stopped", "complete"]
    assert len({attempt["job_id"] for attempt in shell.attempts(run)}) == 1
    steps = [row["step"] for row in shell.metrics(run, "sft") if "loss" in row]
    assert steps == list(range(1, STEPS + 1))
    return run


def test_a_stage_that_is_warned_of_its_time_limit_goes_on_to_the_same_weights(
    shell: Shell, dev_cluster: DevCluster
) -> None:
    # What --signal=USR2@seconds sends to the tasks, and a test would wait a minute for.
    run = disturbed(shell, lambda job: dev_cluster.run("scancel", "--signal=USR2", job), *TWO_NODES)
    assert weights(shell, run) == undisturbed(shell, *TWO_NODES)


def test_a_preempted_stage_goes_on_to_the_same_weights(
    shell: Shell, dev_cluster: DevCluster
) -> None:
    everything = ("--nodes=2", "--exclusive", "--time=1")

    def preempt(_job: str) -> None:
        for partition in ("a100", "h100"):
            dev_cluster.sbatch("sleep 3", f"--partition={partition}", *everything)

    run = disturbed(shell, preempt, "stages.sft.resources.partition=preempt")
    assert weights(shell, run) == undisturbed(shell)


def test_a_stage_whose_user_cancels_its_job_stays_stopped(
    shell: Shell, dev_cluster: DevCluster
) -> None:
    run = shell.data("submit", TINY_SFT, "stages.sft.train.max_steps=100000")["run"]

    def stage() -> dict[str, Any]:
        found: dict[str, Any] = shell.data("status", run)["stages"][0]
        return found

    wait_until(lambda: (stage()["progress"] or {"step": 0})["step"] >= 3, "some steps", LOAD_S)
    job = stage()["job_id"]
    dev_cluster.run("scancel", job)
    dev_cluster.wait_for(job, "CANCELLED")
    wait_until(lambda: bool(stage()["ended"]), "the receipt")
    assert stage()["state"] == "cancelled"
    assert dev_cluster.show(job)["Restarts"] == "0"
