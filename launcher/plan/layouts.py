"""The allocations that a cluster could give to a stage, before memory is asked about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.cluster.types import Cluster, NodeGroup, Partition
from launcher.errors import UsageError
from launcher.recipe.types import Resources, Stage

DEFAULT_MINUTES = 24 * 60
"""Time limit where neither the recipe nor the partition has one."""
EVERY_NODE_COUNT_UP_TO = 8


@dataclass(frozen=True)
class Layout:
    """`nodes` × `per_node` trainer processes on nodes of one group, and the GPUs of a vLLM server
    where the stage has one."""

    partition: Partition
    group: NodeGroup
    nodes: int
    per_node: int
    server: int = 0
    """GPUs (on a CPU-only machine: processes) of the server."""
    apart: bool = False
    """Whether the server has a node of its own, which is then asked for like the others."""

    @property
    def processes(self) -> int:
        """Trainer processes: the world size."""
        return self.nodes * self.per_node

    @property
    def on_gpus(self) -> bool:
        return self.group.gpus > 0

    @property
    def all_nodes(self) -> int:
        return self.nodes + self.apart

    @property
    def tasks_per_node(self) -> int:
        """What is asked of each node, the server's GPUs included."""
        return self.per_node if self.apart else self.per_node + self.server

    @property
    def gpus(self) -> int:
        """All that the job holds."""
        return self.all_nodes * self.tasks_per_node

    @property
    def size(self) -> str:
        """`16 × h100 on 2 nodes`: the layout apart from its partition."""
        served = f" and {self.server} for vLLM" if self.server else ""
        if not self.on_gpus:
            return f"{self.processes} process" + ("" if self.processes == 1 else "es") + served
        if self.apart:
            served = f" and a node with {self.server} for vLLM"
        across = f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.processes} × {self.group.gpu}{across}{served}"

    def __str__(self) -> str:
        return f"{self.size} in {self.partition.name}"


def layouts(cluster: Cluster, stage: Stage) -> list[Layout]:
    """Every layout that the stage's pins allow: 1, 2, 4, … GPUs of a node, then whole nodes.

    On a CPU-only group: `resources.gpus` processes, one by default.
    Raises UsageError where a pin names what the cluster does not have, or more than it has.
    """
    pins = stage.resources
    place = f"stages.{stage.name}.resources"
    _known(pins.partition, (p.name for p in cluster.partitions), f"{place}.partition", "partition")
    _known(pins.gpu, cluster.gpus, f"{place}.gpu", "GPU type")
    partitions = [p for p in cluster.partitions if pins.partition in (None, p.name)]
    groups = [
        (partition, group)
        for partition in partitions
        for group in partition.groups
        if _usable(cluster, group) and pins.gpu in (None, group.gpu)
    ]
    if not groups:
        kind = f"GPUs of type {pins.gpu}" if pins.gpu else "GPUs"
        where = f"partition {pins.partition}" if pins.partition else f"cluster {cluster.name}"
        raise UsageError(
            f"{place}: {where} has no {kind}",
            hint="choose another partition or type, or mend the cluster profile",
        )
    found = [
        Layout(partition, group, nodes, per_node)
        for partition, group in groups
        for nodes, per_node in _shapes(group, pins)
    ]
    if not found:
        raise UsageError(*_too_many(place, pins, groups))
    return found


def cpus(layout: Layout, pins: Resources) -> int:
    """CPUs of one task: the recipe's, else the share of the node that its GPU brings."""
    share = layout.group.gpus if layout.on_gpus else layout.tasks_per_node
    return pins.cpus_per_task or max(1, layout.group.cpus // max(1, share))


def _usable(cluster: Cluster, group: NodeGroup) -> bool:
    if group.gpus > 0 and group.gpu is not None:
        return group.nodes > 0
    return cluster.device == "cpu" and not cluster.gpus and group.nodes > 0


def _shapes(group: NodeGroup, pins: Resources) -> list[tuple[int, int]]:
    """(nodes, processes a node) that the group and the pins allow."""
    if group.gpus == 0:
        processes, nodes = pins.gpus or pins.nodes or 1, pins.nodes or 1
        fits = nodes <= group.nodes and processes % nodes == 0
        return [(nodes, processes // nodes)] if fits else []
    if pins.gpus is not None:
        counts = [pins.nodes] if pins.nodes else range(1, group.nodes + 1)
        for nodes in counts:
            whole = pins.gpus % nodes == 0 and pins.gpus >= nodes
            if whole and pins.gpus // nodes <= group.gpus and nodes <= group.nodes:
                return [(nodes, pins.gpus // nodes)]
        return []
    if pins.nodes is not None:
        if pins.nodes > group.nodes:
            return []
        if pins.nodes > 1:
            return [(pins.nodes, group.gpus)]
    found = [(1, count) for count in _powers(group.gpus)]
    if pins.nodes is None:
        few = set(range(2, min(group.nodes, EVERY_NODE_COUNT_UP_TO) + 1))
        many = {count for count in _powers(group.nodes) if count > 1}
        found += [(nodes, group.gpus) for nodes in sorted(few | many)]
    return found


def _powers(limit: int) -> list[int]:
    """1, 2, 4, … below `limit`, and `limit`."""
    found = [1]
    while found[-1] * 2 <= limit:
        found.append(found[-1] * 2)
    return found if found[-1] == limit else [*found, limit]


def _known(name: str | None, names: Iterable[str], place: str, kind: str) -> None:
    known = sorted(names)
    if name is None or name in known:
        return
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]}? " if close else ""
    listed = ", ".join(known) or "none"
    raise UsageError(
        f"{place}: the cluster has no {kind} `{name}`", hint=f"{meant}It has: {listed}"
    )


def _too_many(place: str, pins: Resources, groups: list[tuple[Partition, NodeGroup]]) -> tuple[str]:
    asked = []
    if pins.gpus is not None:
        asked.append(f"{pins.gpus} {'GPUs' if groups[0][1].gpus else 'processes'}")
    if pins.nodes is not None:
        asked.append(f"{pins.nodes} nodes")
    offers = "; ".join(
        f"{partition.name} has {group.nodes} × {group.gpus or group.cpus} {group.gpu or 'CPUs'}"
        for partition, group in groups
    )
    return (f"{place}: no partition gives {' on '.join(asked)} in equal parts ({offers})",)
