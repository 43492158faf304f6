"""What Slurm has free now, and when it would start what is not: commands, parsers, and the asking.

Nothing is queued: `sbatch --test-only` answers with a start time and forgets the job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from launcher.cluster.availability import Availability, FreeNode, Start
from launcher.cluster.types import Cluster, NodeGroup, Partition
from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler.discover import UNTYPED, parse_gres

_FIELDS = ("PartitionName", "NodeHost", "StateCompact", "Gres", "GresUsed")
_WIDTH = 255
_READY = ("idle", "mix", "alloc", "plnd", "comp")
_MOST_MINUTES = 24 * 60
_MEMORY_SHARE = 0.5
"""Of what a job's GPUs bring of their node: how much a stage asks for is not known yet."""
_START = re.compile(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


class Run(Protocol):
    def __call__(self, argv: list[str], timeout: float = ..., *, both: bool = ...) -> str:
        """What a command prints, with `both` on standard error too; raises LauncherError."""


def sinfo_command() -> list[str]:
    columns = ",".join(f"{field}:{_WIDTH}|" for field in _FIELDS)
    return ["sinfo", "--noheader", "--Node", f"--Format={columns}"]


def parse_sinfo(text: str) -> tuple[FreeNode, ...]:
    """The GPUs that no job has, of nodes that take jobs; one in several partitions comes once for
    each."""
    free = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) < len(_FIELDS):
            continue
        partition, _, state, gres, used = words[: len(_FIELDS)]
        if not state.startswith(_READY) or state.endswith(("*", "$", "@")):
            continue
        taken = parse_gres(used)
        for gpu, count in parse_gres(gres).items():
            left = count - taken.get(gpu, 0)
            if left > 0:
                free.append(FreeNode(partition, gpu, left))
    return tuple(free)


def start_command(
    cluster: Cluster, partition: Partition, group: NodeGroup, nodes: int, gpus: int
) -> list[str]:
    """When would a job of `nodes` × `gpus` start that takes its GPUs' share of each node?"""
    request = f"{group.gpu}:{gpus}" if cluster.typed else str(gpus)
    asked = f"gpu:{request}" if cluster.gpu_request == "gres" else request
    share = gpus / max(1, group.gpus)
    options = {
        "partition": partition.name,
        "nodes": str(nodes),
        "ntasks-per-node": str(gpus),
        "cpus-per-task": str(max(1, group.cpus // max(1, group.gpus))),
        "mem": f"{int(group.memory_gib * share * _MEMORY_SHARE * 1024)}M",
        "gres" if cluster.gpu_request == "gres" else "gpus-per-node": asked,
        "time": str(min(partition.max_time_minutes or _MOST_MINUTES, _MOST_MINUTES)),
        "account": partition.account or cluster.account,
        "qos": partition.qos or cluster.qos,
        "constraint": cluster.constraint,
        "reservation": cluster.reservation,
    }
    given = [f"--{name}={value}" for name, value in options.items() if value]
    return ["sbatch", "--test-only", *given, "--wrap=true"]


def parse_start(text: str, now: datetime) -> float | None:
    """Seconds from `now` (local time, as Slurm prints it) to the start that Slurm expects."""
    match = _START.search(text)
    if match is None:
        return None
    return max(0.0, (datetime.fromisoformat(match[1]) - now).total_seconds())


def ask(run: Run, cluster: Cluster, now: datetime) -> Availability:
    """What is free on `cluster`, and when jobs that do not fit now would start.

    Raises SchedulerUnavailable where Slurm does not answer, or is another cluster's than the
    profile describes.
    """
    names = {partition.name for partition in cluster.partitions}
    found = [each for each in parse_sinfo(run(sinfo_command())) if each.partition in names]
    if not cluster.typed:
        found = [_typed(each, cluster) for each in found if each.gpu == UNTYPED]
    free = Availability(tuple(found))
    starts = []
    for partition, group, nodes, gpus in _sizes(cluster):
        assert group.gpu is not None
        if free.fits_now(partition.name, group.gpu, nodes, gpus):
            continue
        seconds = _start(run, start_command(cluster, partition, group, nodes, gpus), now)
        starts.append(Start(partition.name, group.gpu, nodes, gpus, seconds))
    if not found and all(each.seconds is None for each in starts):
        raise SchedulerUnavailable(
            f"the Slurm at hand knows of no GPU of cluster {cluster.name}",
            hint="run on a login node of that cluster",
        )
    return Availability(tuple(found), tuple(starts))


def _start(run: Run, command: list[str], now: datetime) -> float | None:
    try:
        return parse_start(run(command, both=True), now)
    except SchedulerUnavailable:
        raise
    except LauncherError:
        return None


def _typed(node: FreeNode, cluster: Cluster) -> FreeNode:
    """GPUs that Slurm counts without a type are of the one type that the partition has."""
    groups = cluster.partition(node.partition).groups
    gpu = next((group.gpu for group in groups if group.gpu), node.gpu)
    return FreeNode(node.partition, gpu, node.gpus)


def _sizes(cluster: Cluster) -> Iterator[tuple[Partition, NodeGroup, int, int]]:
    """1, 2, 4, … GPUs of a node, then 2, 4, … whole nodes, of each kind of node."""
    for partition in cluster.partitions:
        for group in partition.groups:
            if group.gpu is None:
                continue
            for gpus in _powers(group.gpus):
                yield partition, group, 1, gpus
            for nodes in _powers(group.nodes)[1:]:
                yield partition, group, nodes, group.gpus


def _powers(limit: int) -> list[int]:
    """1, 2, 4, … up to `limit`, and `limit`."""
    found = [1]
    while found[-1] * 2 <= limit:
        found.append(found[-1] * 2)
    return found if found[-1] == limit else [*found, limit]
