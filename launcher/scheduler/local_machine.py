"""This machine as a cluster of one node."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from launcher.cluster.gpu_types import gpu_of
from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.errors import LauncherError
from launcher.scheduler import nvidia_smi
from launcher.scheduler.discover import Run

_CGROUP = Path("/sys/fs/cgroup")
# Version 2 and version 1: the memory limit, then quota and period of the processors.
_MEMORY_FILES = ("memory.max", "memory/memory.limit_in_bytes")
_CPU_FILES = ("cpu.max", "cpu/cpu.cfs_quota_us")
_PERIOD_FILE = "cpu/cpu.cfs_period_us"


def local_cluster(run: Run, name: str = "local") -> Cluster:
    """This machine: its GPUs where nvidia-smi answers, else its processors."""
    try:
        devices = nvidia_smi.parse(run(nvidia_smi.command()))
    except LauncherError:
        devices = ()
    devices = nvidia_smi.visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))
    quotas = [parse_cpu_quota(_read(file), _read(_PERIOD_FILE)) for file in _CPU_FILES]
    cpus = min([len(os.sched_getaffinity(0)), *(quota for quota in quotas if quota)])
    memory = parse_memory(
        Path("/proc/meminfo").read_text(), [_read(file) for file in _MEMORY_FILES]
    )
    return describe(name, devices, cpus, memory)


def describe(
    name: str, devices: Iterable[nvidia_smi.Device], cpus: int, memory_gib: float
) -> Cluster:
    """A cluster of one node, without Slurm; GPUs of several models are several groups."""
    devices = tuple(devices)
    node = NodeGroup(nodes=1, cpus=cpus, memory_gib=memory_gib)
    counts = Counter(type_name(device.name) for device in devices)
    gpus: dict[str, Gpu] = {}
    for device in devices:
        gpu = type_name(device.name)
        least = min(each.memory_gib for each in devices if type_name(each.name) == gpu)
        gpus[gpu] = replace(gpu_of(gpu), memory_gib=least)
    groups = tuple(replace(node, gpu=gpu, gpus=count) for gpu, count in counts.items())
    return Cluster(
        name=name,
        partitions=(Partition("local", groups or (node,)),),
        gpus=gpus,
        engine="local",
        device="cuda" if devices else "cpu",
        interconnect="none",
    )


def type_name(driver_name: str) -> str:
    """`NVIDIA A100-SXM4-80GB` as a type's name: `a100-sxm4-80gb`."""
    words = re.split(r"[^a-z0-9.-]+", driver_name.lower())
    return "_".join(word for word in words if word and word not in ("nvidia", "tesla", "geforce"))


def parse_memory(meminfo: str, limits: Iterable[str]) -> float:
    """GiB of the machine, or of its control group where that is less.

    `meminfo` is the text of /proc/meminfo; a limit of `max`, or none, is no limit.
    """
    match = re.search(r"^MemTotal: +(\d+) kB", meminfo, re.MULTILINE)
    sizes = [int(match[1]) * 1024] if match else []
    sizes += [int(limit) for limit in map(str.strip, limits) if limit.isdecimal()]
    return round(min(sizes) / 2**30, 2)


def parse_cpu_quota(quota: str, period: str) -> int | None:
    """Processors that a control group may use, at least 1; None: no limit.

    `quota` is the text of `cpu.max` (with its period), or of `cpu.cfs_quota_us` with `period`.
    """
    words = [*quota.split(), *period.split()][:2]
    if len(words) < 2 or not all(word.isdecimal() for word in words):
        return None
    return max(1, int(words[0]) // int(words[1]))


def _read(name: str) -> str:
    """A file of this process's control group; '' where there is none."""
    try:
        return (_CGROUP / name).read_text()
    except OSError:
        return ""
