"""What a `command` stage is given: what it pins, else the least there is. Pure.

Nothing is known of a program's memory or time, so nothing is searched.
"""

from __future__ import annotations

from launcher.cluster.types import Cluster
from launcher.errors import UsageError
from launcher.memory.types import MemoryEstimate, Phase
from launcher.plan.layouts import DEFAULT_MINUTES, Layout, cpus, layouts
from launcher.plan.types import Allocation, StagePlan
from launcher.recipe.types import Stage

LEAD_S = 120
"""Before the end of the time limit the program is told to stop; the next job starts it anew."""


def plan_command(stage: Stage, cluster: Cluster) -> StagePlan:
    """The cheapest allocation that the stage's pins allow: one GPU where they pin none (on a
    CPU-only machine, one process).

    Raises UsageError where the cluster does not have what is pinned.
    """
    pins = stage.resources
    every = layouts(cluster, stage)
    fitting = [each for each in every if _fits(each, stage, cluster)]
    if not fitting:
        raise UsageError(
            f"stages.{stage.name}.resources: no partition gives so much time, memory or CPUs",
            hint="ask for less, or name another partition",
        )
    layout = min(fitting, key=lambda each: (_price(each, cluster), each.processes))
    gpu = layout.group.gpu if layout.on_gpus else None
    minutes = pins.time_minutes or layout.partition.max_time_minutes or DEFAULT_MINUTES
    return StagePlan(
        stage=stage,
        allocation=Allocation(
            partition=layout.partition.name,
            gpu=gpu,
            gpu_memory_gib=cluster.gpus[gpu].memory_gib if gpu else None,
            nodes=layout.nodes,
            tasks_per_node=layout.per_node,
            cpus_per_task=cpus(layout, pins),
            host_memory_gib=pins.host_memory_gib or _memory_gib(layout),
            time_minutes=minutes,
            signal_lead_s=min(LEAD_S, minutes * 60 // 2),
        ),
        zero_stage=0,
        offload="none",
        gradient_checkpointing=False,
        micro_batch=1,
        accumulation=1,
        estimate=MemoryEstimate(phases=(Phase("none", {}),), host_bytes=0),
        margin=0.0,
        deepspeed=None,
    )


def _fits(layout: Layout, stage: Stage, cluster: Cluster) -> bool:
    pins, longest = stage.resources, layout.partition.max_time_minutes
    if pins.time_minutes is not None and longest is not None and pins.time_minutes > longest:
        return False
    if pins.host_memory_gib is not None and pins.host_memory_gib > layout.group.memory_gib:
        return False
    if cluster.engine != "slurm":
        return True
    return cpus(layout, pins) * layout.per_node <= layout.group.cpus


def _price(layout: Layout, cluster: Cluster) -> float:
    gpu = cluster.gpus.get(layout.group.gpu or "")
    return layout.processes * (gpu.price if gpu is not None else 1.0)


def _memory_gib(layout: Layout) -> float:
    """The share of a node's memory that its GPUs bring; without GPUs, all of it."""
    share = layout.per_node / layout.group.gpus if layout.on_gpus else 1.0
    return float(max(1, int(layout.group.memory_gib * share)))
