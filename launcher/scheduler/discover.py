"""A cluster profile from what Slurm says of itself: commands, parsers, and what is made of them.

`sinfo` and `scontrol` as text: it has stayed the same from 22.05 to 24.11, their JSON has not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from launcher.cluster.gpu_types import gpu_of
from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler import nvidia_smi

STAND_IN = "gpu_stand_in"
"""The node feature by which a development cluster says that its GPUs compute nothing."""
UNTYPED = "gpu"
"""The name of GPUs that Slurm counts without a type."""

_PROBE_QUEUE_SECONDS = 60


class Run(Protocol):
    def __call__(self, argv: list[str], timeout: float = ...) -> str:
        """What a command prints; raises LauncherError when it fails."""


@dataclass(frozen=True)
class NodeLine:
    """One node as a member of one partition."""

    partition: str
    node: str
    state: str
    """`idle`, `mixed*`, `drained`, …"""
    cpus: int
    memory_mib: int
    gpus: Mapping[str, int]
    """GPUs by type; `UNTYPED` for those without."""
    features: frozenset[str]

    @property
    def usable(self) -> bool:
        """Whether jobs may run there, now or once others have ended."""
        return not self.state.endswith("*") and not self.state.startswith(_OUT_OF_SERVICE)


_OUT_OF_SERVICE = ("down", "drain", "fail", "error", "maint", "inval", "unknown", "future")


@dataclass(frozen=True)
class PartitionLine:
    name: str
    open: bool
    """Whether it takes and runs jobs of ordinary users."""
    max_time_minutes: int | None
    max_nodes: int | None
    max_cpus_per_node: int | None
    max_memory_mib: int | None
    """Of a node."""
    priority_tier: int
    preempt_mode: str


def sinfo_command() -> list[str]:
    return ["sinfo", "--noheader", "--Node", "--format=%R|%N|%T|%c|%m|%G|%f"]


def parse_sinfo(text: str) -> tuple[NodeLine, ...]:
    """Every node of every partition; one in several partitions comes once for each."""
    lines = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|", 6)]
        if len(words) == 7:
            partition, node, state, cpus, memory, gres, features = words
            lines.append(
                NodeLine(
                    partition,
                    node,
                    state.lower(),
                    _leading_int(cpus) or 0,
                    _leading_int(memory) or 0,
                    parse_gres(gres),
                    frozenset(re.findall(r"[^,&|()]+", features)) - {"null"},
                )
            )
    return tuple(lines)


def parse_gres(text: str) -> dict[str, int]:
    """GPUs by type from a node's gres: `gpu:a100:4(S:0-1),gpu:2` is {a100: 4, gpu: 2}."""
    found: Counter[str] = Counter()
    for entry in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = entry.strip().split(":")
        words = [word for word in rest if word != "no_consume"]
        if name != "gpu":
            continue
        count = int(words.pop()) if words and words[-1].isdecimal() else 1
        found[words[0] if words else UNTYPED] += count
    return {name: count for name, count in found.items() if count}


def partitions_command() -> list[str]:
    return ["scontrol", "show", "partition", "--oneliner"]


def parse_partitions(text: str) -> tuple[PartitionLine, ...]:
    """The partitions that the user may see."""
    lines = []
    for line in text.splitlines():
        found = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" in found:
            lines.append(
                PartitionLine(
                    name=found["PartitionName"],
                    open=found.get("State", "UP") == "UP" and found.get("RootOnly") != "YES",
                    max_time_minutes=parse_time(found.get("MaxTime", "UNLIMITED")),
                    max_nodes=_leading_int(found.get("MaxNodes", "")),
                    max_cpus_per_node=_leading_int(found.get("MaxCPUsPerNode", "")),
                    max_memory_mib=_leading_int(found.get("MaxMemPerNode", "")),
                    priority_tier=_leading_int(found.get("PriorityTier", "")) or 1,
                    preempt_mode=found.get("PreemptMode", "OFF"),
                )
            )
    return tuple(lines)


def parse_time(text: str) -> int | None:
    """Whole minutes of a limit such as `7-00:00:00`, `12:00:00` or `30:00`; None: no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    return (days * 24 + hours) * 60 + minutes


def config_command() -> list[str]:
    return ["scontrol", "show", "config"]


def parse_config(text: str) -> dict[str, str]:
    return {
        match[1]: match[2].strip() for match in re.finditer(r"^(\w+) *= *(.*)$", text, re.MULTILINE)
    }


def discover(run: Run, name: str) -> Cluster:
    """The profile, called `name`, of the Slurm that answers here.

    Nodes that are down or drained are left out, and partitions without any other. Where some GPUs
    have a type and some have none, those without are left out: a request that names no type could
    land on any. Raises SchedulerUnavailable.
    """
    config = parse_config(run(config_command()))
    partitions = parse_partitions(run(partitions_command()))
    return make_profile(name, config, partitions, parse_sinfo(run(sinfo_command())))


def make_profile(
    name: str,
    config: Mapping[str, str],
    partitions: Iterable[PartitionLine],
    nodes: Iterable[NodeLine],
) -> Cluster:
    """The profile of what was parsed. Raises SchedulerUnavailable when no node takes jobs."""
    nodes = tuple(nodes)
    partitions = tuple(partitions)
    typed = any(gpu != UNTYPED for node in nodes for gpu in node.gpus)
    found = []
    for line in partitions:
        groups = _groups(line, nodes, typed)
        if line.open and groups:
            found.append(
                Partition(
                    name=line.name,
                    groups=groups,
                    max_time_minutes=line.max_time_minutes,
                    preemptible=_preemptible(line, partitions, nodes, config),
                )
            )
    if not found:
        raise SchedulerUnavailable(
            "no partition of this Slurm has a node that takes jobs", hint="see `sinfo -R`"
        )
    gpus = {group.gpu: gpu_of(group.gpu) for p in found for group in p.groups if group.gpu}
    stand_ins = any(node.gpus and STAND_IN in node.features for node in nodes)
    return Cluster(
        name=name,
        partitions=tuple(found),
        gpus=gpus,
        device="cuda" if gpus and not stand_ins else "cpu",
        typed=typed or not gpus,
    )


def _groups(line: PartitionLine, nodes: Iterable[NodeLine], typed: bool) -> tuple[NodeGroup, ...]:
    """The partition's usable nodes by shape; one with GPUs of two types is in a group of each."""
    shapes: Counter[NodeGroup] = Counter()
    for node in nodes:
        if node.partition != line.name or not node.usable:
            continue
        cpus = min(node.cpus, line.max_cpus_per_node or node.cpus)
        memory = round(min(node.memory_mib, line.max_memory_mib or node.memory_mib) / 1024, 2)
        shape = NodeGroup(nodes=1, cpus=cpus, memory_gib=memory)
        wanted = {gpu: count for gpu, count in node.gpus.items() if (gpu != UNTYPED) == typed}
        for gpu, count in wanted.items():
            shapes[replace(shape, gpu=gpu, gpus=count)] += 1
        if not node.gpus:
            shapes[shape] += 1
    return tuple(
        replace(shape, nodes=min(count, line.max_nodes or count)) for shape, count in shapes.items()
    )


def _preemptible(
    line: PartitionLine,
    partitions: Iterable[PartitionLine],
    nodes: Iterable[NodeLine],
    config: Mapping[str, str],
) -> bool:
    """Whether a partition of a higher tier may take this one's nodes from running jobs.

    Preemption by QOS belongs to the job, not to the partition.
    """
    if config.get("PreemptType") != "preempt/partition_prio":
        return False
    if not set(line.preempt_mode.split(",")) & {"REQUEUE", "CANCEL", "SUSPEND"}:
        return False
    mine = {node.node for node in nodes if node.partition == line.name}
    above = {other.name for other in partitions if other.priority_tier > line.priority_tier}
    return any(node.partition in above and node.node in mine for node in nodes)


def probe(run: Run, cluster: Cluster, note: Callable[[str], None] = lambda text: None) -> Cluster:
    """`cluster` with the memory of unknown GPU types as nvidia-smi, in a job of each, reports it.

    A job that does not start within a minute, or fails, leaves its type unknown; `note` is told
    why. Of several sizes under one name the smallest is taken.
    """
    gpus: dict[str, Gpu] = {}
    for name, gpu in cluster.gpus.items():
        gpus[name] = gpu
        if gpu.memory_gib is not None:
            continue
        sizes = []
        for partition, group in _shapes_with(cluster, name):
            command = probe_command(cluster, partition, group)
            try:
                text = run(command, timeout=_PROBE_QUEUE_SECONDS + 30)
            except LauncherError as error:
                note(f"{name} in {partition.name}: {error.message}")
                continue
            sizes += [device.memory_gib for device in nvidia_smi.parse(text)]
        if sizes:
            gpus[name] = replace(gpu, memory_gib=min(sizes))
    return replace(cluster, gpus=gpus)


def probe_command(cluster: Cluster, partition: Partition, group: NodeGroup) -> list[str]:
    """An srun of nvidia-smi on one GPU of `group`."""
    gpu = f"{group.gpu}:1" if cluster.typed else "1"
    gpus = f"--gres=gpu:{gpu}" if cluster.gpu_request == "gres" else f"--gpus-per-node={gpu}"
    options = {
        "account": partition.account or cluster.account,
        "qos": partition.qos or cluster.qos,
        "constraint": cluster.constraint,
        "reservation": cluster.reservation,
    }
    return [
        "srun",
        "--quiet",
        f"--partition={partition.name}",
        "--nodes=1",
        "--ntasks=1",
        gpus,
        "--time=2",
        f"--immediate={_PROBE_QUEUE_SECONDS}",
        "--job-name=launcher-probe",
        *(f"--{option}={value}" for option, value in options.items() if value),
        *nvidia_smi.command(),
    ]


def _shapes_with(cluster: Cluster, gpu: str) -> Iterator[tuple[Partition, NodeGroup]]:
    """Each shape of node that has the type, in one partition that has it."""
    seen = set()
    for partition in cluster.partitions:
        for group in partition.groups:
            shape = replace(group, nodes=1)
            if group.gpu == gpu and shape not in seen:
                seen.add(shape)
                yield partition, group


def _leading_int(text: str) -> int | None:
    """The number that `text` begins with (`64+` is 64); None: none, so UNLIMITED too."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None
