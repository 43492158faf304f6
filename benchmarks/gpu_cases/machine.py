"""The machine that this runs on, as a cluster and as what results name."""

from __future__ import annotations

import platform
from dataclasses import replace

from benchmarks.gpu_cases.result import Machine
from launcher.cluster.types import Cluster, NodeGroup
from launcher.errors import UsageError
from launcher.memory.types import GIB
from launcher.scheduler import shell
from launcher.scheduler.local_machine import local_cluster


def this_machine(device: str) -> tuple[Cluster, Machine]:
    """With its first GPU alone; with `device` `cpu` without. Raises UsageError where none is."""
    cluster = local_cluster(shell.run)
    python = platform.python_version()
    node = cluster.partitions[0].groups[0]
    if device == "cpu":
        processors = replace(_of(cluster, replace(node, gpu=None, gpus=0)), gpus={}, device="cpu")
        return processors, Machine("cpu", round(node.memory_gib * GIB), "", python)
    if node.gpu is None:
        raise UsageError("nvidia-smi shows no GPU", hint="--device cpu --small runs without one")
    words = shell.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    ).splitlines()[0]
    name, _, driver = words.rpartition(", ")
    memory = cluster.gpus[node.gpu].memory_gib or 0.0
    # The engine counts from the first GPU, and so does nvidia-smi.
    return _of(cluster, replace(node, gpus=1)), Machine(name, round(memory * GIB), driver, python)


def _of(cluster: Cluster, node: NodeGroup) -> Cluster:
    return replace(cluster, partitions=(replace(cluster.partitions[0], groups=(node,)),))
