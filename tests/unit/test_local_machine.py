"""This machine as a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from launcher.cluster.types import Gpu, NodeGroup
from launcher.errors import LauncherError
from launcher.scheduler import nvidia_smi
from launcher.scheduler.local_machine import (
    describe,
    local_cluster,
    parse_cpu_quota,
    parse_memory,
    type_name,
)

MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1 kB\n"
TWO = """\
0, GPU-aa11, NVIDIA A100-SXM4-40GB, 0, 40330
1, GPU-bb22, NVIDIA A100-SXM4-40GB, 100, 40227
"""


def test_a_machine_without_nvidia_smi_computes_on_its_processors() -> None:
    def run(argv: list[str], timeout: float = 30) -> str:
        raise LauncherError("nvidia-smi is not on this machine")

    found = local_cluster(run)
    assert (found.engine, found.device, found.gpus) == ("local", "cpu", {})
    (group,) = found.partition("local").groups
    assert group.nodes == 1
    assert group.gpus == 0
    assert group.cpus >= 1
    assert group.memory_gib > 0


def test_gpus_of_the_machine_are_a_type_with_the_memory_of_the_smallest() -> None:
    found = describe("local", nvidia_smi.parse(TWO), cpus=32, memory_gib=200.0)
    assert found.device == "cuda"
    assert found.gpus == {"a100-sxm4-40gb": Gpu(memory_gib=39.38)}
    assert found.partition("local").groups == (NodeGroup(1, 32, 200.0, "a100-sxm4-40gb", 2),)


def test_cuda_visible_devices_chooses_as_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = nvidia_smi.parse(TWO)

    def chosen(selection: str | None) -> list[int]:
        return [device.index for device in nvidia_smi.visible(devices, selection)]

    assert chosen(None) == [0, 1]
    assert chosen("1") == [1]
    assert chosen("GPU-aa, 1") == [0, 1]
    assert chosen("") == []
    assert chosen("1,-1,0") == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_cluster(lambda argv, timeout=30: TWO).partition("local").groups[0].gpus == 1


def test_names_of_the_driver_become_names_of_types() -> None:
    assert type_name("NVIDIA A100-SXM4-80GB") == "a100-sxm4-80gb"
    assert type_name("NVIDIA GeForce RTX 4090") == "rtx_4090"


def test_memory_is_the_machines_or_the_containers() -> None:
    assert parse_memory(MEMINFO, []) == 16.0
    assert parse_memory(MEMINFO, ["max\n", ""]) == 16.0
    assert parse_memory(MEMINFO, [f"{4 * 2**30}\n"]) == 4.0
    assert parse_memory(MEMINFO, ["9223372036854771712\n"]) == 16.0


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("max 100000\n", "", None),
        ("250000 100000\n", "", 2),
        ("50000 100000\n", "", 1),
        ("-1\n", "100000\n", None),
        ("400000\n", "100000\n", 4),
        ("", "", None),
    ],
)
def test_processors_are_bounded_by_the_containers_quota(
    quota: str, period: str, cpus: int | None
) -> None:
    assert parse_cpu_quota(quota, period) == cpus


OTHER_TASK = """
import time
from launcher.scheduler import first_task
first_task.GONE_S = 1
first = first_task.FirstTask()
print(first.gone(), flush=True)
began = time.monotonic()
while not first.gone() and time.monotonic() - began < 60:
    time.sleep(0.05)
print(first.gone(), flush=True)
"""


@pytest.mark.parametrize("first_one", ["lives", "is killed", "was killed before"])
def test_a_task_knows_when_the_first_of_its_job_is_gone(first_one: str) -> None:
    def task(rank: str, *argv: str) -> subprocess.Popen[str]:
        env = {**os.environ, "SUBMITIT_LOCAL_GLOBALID": rank}
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)

    first = task("0", "sleep", "600")
    if first_one == "was killed before":
        first.kill()
    bystander = task("2", "sleep", "600")
    other = task("1", sys.executable, "-c", OTHER_TASK)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "False\n"
        # The end of another task is nothing to it.
        (bystander if first_one == "lives" else first).kill()
        if first_one == "lives":
            time.sleep(3)
            assert other.poll() is None
        else:
            assert other.communicate(timeout=30)[0] == "True\n"
    finally:
        for each in (first, bystander, other):
            each.kill()
            each.wait()
