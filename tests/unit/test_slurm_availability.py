"""What Slurm says of free GPUs and starts, as its tools print it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from launcher.cluster.availability import FreeNode
from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler.availability import ask, parse_sinfo, parse_start, start_command
from launcher.scheduler.shell import CommandFailed
from tests.unit.planning import FORTY, MIXED, cluster

# 22.05 and 24.11 print fields of the asked width, with `|` after each.
SINFO = """\
forty     |n1   |idle |gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:0(IDX:N/A) |
forty     |n2   |mix  |gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:6(IDX:0-5) |
forty     |n3   |alloc|gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:8(IDX:0-7) |
forty     |n4   |drain|gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:0(IDX:N/A) |
forty     |n5   |idle*|gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:0(IDX:N/A) |
any-spare |n1   |idle |gpu:a100_40gb:8(S:0-1) |gpu:a100_40gb:0(IDX:N/A) |
cpus      |c1   |idle |(null)                 |gpu:0                    |
"""
NOW = datetime(2026, 3, 1, 12, 0, 0)
SAYS = "sbatch: Job 17 to start at 2026-03-01T12:30:00 using 64 processors on nodes n[3-4]\n"


def test_free_gpus_are_those_of_nodes_that_take_jobs() -> None:
    assert parse_sinfo(SINFO) == (
        FreeNode("forty", "a100_40gb", 8),
        FreeNode("forty", "a100_40gb", 2),
        FreeNode("any-spare", "a100_40gb", 8),
    )
    assert parse_sinfo("") == ()
    assert parse_sinfo("slurm_load_partitions: Unable to contact") == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SAYS, 1800.0),
        (SAYS.replace("T12:30", "T11:59"), 0.0),
        ("allocation failure: Requested node configuration is not available", None),
        ("", None),
    ],
)
def test_a_start_is_read_from_what_sbatch_says(text: str, seconds: float | None) -> None:
    assert parse_start(text, NOW) == seconds


def test_a_test_asks_for_what_a_stage_would_ask_and_queues_nothing() -> None:
    site = replace(MIXED, account="lab", constraint="ib")
    words = start_command(site, FORTY, FORTY.groups[0], 2, 4)
    assert words[:2] == ["sbatch", "--test-only"]
    assert {
        "--partition=forty", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8",
        "--gres=gpu:a100_40gb:4", "--time=1440", "--account=lab", "--constraint=ib",
    } <= set(words)  # fmt: skip
    plain = replace(MIXED, typed=False, gpu_request="gpus-per-node")
    assert "--gpus-per-node=4" in start_command(plain, FORTY, FORTY.groups[0], 1, 4)


class Slurm:
    """What `sinfo` and `sbatch --test-only` answer."""

    def __init__(self, sinfo: str = SINFO, test: str | LauncherError = SAYS) -> None:
        self.sinfo, self.test = sinfo, test
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[str], timeout: float = 30, *, both: bool = False) -> str:
        if argv[0] == "sinfo":
            return self.sinfo
        assert both
        self.asked.append(argv)
        if isinstance(self.test, LauncherError):
            raise self.test
        return self.test


def test_starts_are_asked_only_of_what_does_not_fit_now() -> None:
    slurm = Slurm()
    found = ask(slurm, cluster(FORTY), NOW)
    assert found.wait_s("forty", "a100_40gb", 1, 8) == 0
    assert [(each.nodes, each.gpus, each.seconds) for each in found.starts] == [
        (2, 8, 1800.0),
        (4, 8, 1800.0),
    ]
    assert len(slurm.asked) == 2


def test_a_refused_size_has_no_start() -> None:
    slurm = Slurm(test=CommandFailed("sbatch: error: invalid account"))
    assert {each.seconds for each in ask(slurm, cluster(FORTY), NOW).starts} == {None}


def test_untyped_gpus_are_of_the_partitions_type() -> None:
    slurm = Slurm(SINFO.replace("gpu:a100_40gb:", "gpu:"))
    found = ask(slurm, cluster(FORTY, typed=False), NOW)
    assert found.fits_now("forty", "a100_40gb", 1, 8)


def test_another_clusters_slurm_and_a_silent_one_are_told() -> None:
    slurm = Slurm("", CommandFailed("sbatch: error: invalid partition specified: forty"))
    with pytest.raises(SchedulerUnavailable, match="knows of no GPU of cluster lab"):
        ask(slurm, cluster(FORTY), NOW)
    silent = Slurm(test=SchedulerUnavailable("Slurm does not answer"))
    with pytest.raises(SchedulerUnavailable, match="does not answer"):
        ask(silent, cluster(FORTY), NOW)
