"""`--objective start` on the real Slurm: what is free, and when the rest would be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.slurm.devcluster import DevCluster, wait_until
from tests.slurm.shell import Shell

PLAN = ("plan", "sft_7b", "--objective", "start")


@pytest.fixture
def busy(dev_cluster: DevCluster) -> Iterator[str]:
    """A job that holds both nodes of the partition a100 for half an hour; its id."""
    words = ("--partition=a100", "--nodes=2", "--gres=gpu:a100_40gb:8", "--mem=1000", "--time=30")
    job = dev_cluster.run("sbatch", "--parsable", *words, "--wrap=sleep 600").strip()

    def state() -> str:
        return dev_cluster.run("squeue", "--noheader", "--jobs", job, "--format=%T").strip()

    try:
        wait_until(lambda: state() == "RUNNING", "the job runs")
        yield job
    finally:
        dev_cluster.run("scancel", job)
        wait_until(lambda: state() not in ("RUNNING", "COMPLETING"), "the job is gone")


def test_a_stage_goes_where_it_can_start_now(shell: Shell, busy: str) -> None:
    (found,) = shell.data(*PLAN)["plan"]["stages"]
    assert found["allocation"]["gpu"] == "h100_80gb"
    # The job ends in half an hour at the latest, says Slurm.
    assert any(
        f"starts {minutes} minutes later" in line["why"]
        for minutes in (29, 30)
        for line in found["rejected"]
    ), found["rejected"]


def test_an_idle_cluster_gives_what_costs_least(shell: Shell) -> None:
    (found,) = shell.data(*PLAN)["plan"]["stages"]
    assert found["allocation"]["gpu"] == "a100_40gb"
    assert found["allocation"]["partition"] == "a100"


def test_another_clusters_profile_says_that_nobody_knows(shell: Shell) -> None:
    process: subprocess.Popen[str] = shell.start(*PLAN, "--cluster", "v100_32", "dtype=float16")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "knows of no GPU of cluster v100_32" in err
    assert "planned by cost" in out
