"""Where a stage's vLLM runs: beside its trainers, or on GPUs of its own in the same job. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from launcher.cluster.types import Cluster, NodeGroup
from launcher.errors import DoesNotFit, LauncherError, UsageError
from launcher.memory.server import HOST_GIB, colocated_share, server_memory, server_share
from launcher.memory.types import GIB, Phase
from launcher.models.types import ModelShape
from launcher.plan.layouts import Layout
from launcher.recipe import vllm
from launcher.recipe.types import Stage

_ROLE = "policy"
COLOCATED_SEQUENCES = 1
"""Sequences of full length that the cache beside a trainer must hold, or vLLM does not start."""


def with_server(
    stage: Stage,
    shapes: Mapping[str, ModelShape],
    cluster: Cluster,
    found: Sequence[Layout],
) -> list[Layout]:
    """The layouts on which the stage's server has a place too; all of them where it has none.

    On the trainers' only node it takes the fewest GPUs that hold it; on a node of its own, whose
    GPUs the job holds anyway, as many as the model's layers divide by. `shapes` is keyed by role.
    Raises UsageError or DoesNotFit where no layout is left.
    """
    if vllm.mode(stage) != "server":
        return list(found)
    shape = shapes[_ROLE]
    pin, place = stage.resources.server_gpus, f"stages.{stage.name}.resources.server_gpus"
    if pin is not None and not divides(shape, pin):
        raise UsageError(
            f"{place}: {_sizes(shape)} do not divide by {pin} GPUs, as tensor parallelism needs",
            hint=f"set {_near(shape, pin)}, or leave it to the plan",
        )
    if pin is not None and pin > 1 and not any(each.on_gpus for each in found):
        raise UsageError(f"{place}: without GPUs the server is one process", hint="leave it out")
    placed: list[Layout] = []
    for layout in [*found, *_beside(stage, shape, cluster, found)]:
        there = _placed(stage, shape, cluster, layout)
        if there is not None and there not in placed:
            placed.append(there)
    if not placed:
        raise _nowhere(stage, shape, cluster, found)
    return placed


def divides(shape: ModelShape, gpus: int) -> bool:
    """Whether vLLM can give each of `gpus` a part of every layer; heads of keys and values are
    copied where there are fewer of them."""
    kv = shape.kv_heads
    shared = kv % gpus == 0 or gpus % kv == 0
    return shape.heads % gpus == 0 and shared and shape.intermediate % gpus == 0


def host_gib(layout: Layout, served: Phase, device: str, trainers: float) -> float:
    """Host memory (GiB) to ask of each node, of which `trainers` is what those of one need."""
    each = HOST_GIB["cpu" if device == "cpu" else "cuda"]
    own = layout.server * (each + (served.total / GIB if device == "cpu" else 0.0))
    return max(trainers, own) if layout.apart else trainers + own


def serves(
    stage: Stage, shapes: Mapping[str, ModelShape], layout: Layout, device: str
) -> Phase | None:
    """The least that each GPU of the layout's server needs; None: it has none."""
    if not layout.server:
        return None
    return server_memory(stage, shapes[_ROLE], layout.server, device)


def refusal(
    stage: Stage, shapes: Mapping[str, ModelShape], cluster: Cluster, layout: Layout
) -> UsageError | None:
    """Why vLLM cannot run in the trainers' processes of `layout`; None: it can, or need not."""
    if vllm.mode(stage) != "colocate":
        return None
    shape = shapes[_ROLE]
    place = f"stages.{stage.name}.train"
    parts = int(stage.train.get("vllm_tensor_parallel_size") or 1)
    if not divides(shape, parts):
        return UsageError(
            f"{place}.vllm_tensor_parallel_size: {_sizes(shape)} do not divide by {parts}",
            hint=f"set {_near(shape, parts)}",
        )
    if layout.per_node % parts:
        return UsageError(
            f"{place}.vllm_tensor_parallel_size: {layout.per_node} processes a node are no whole"
            f" groups of {parts}",
            hint="lower it, or set `resources.gpus` to a multiple of it",
        )
    memory = _gpu_gib(cluster, layout.group)
    if cluster.device != "cuda" or memory is None:
        return None
    least = server_memory(stage, shape, parts, sequences=COLOCATED_SEQUENCES).total / GIB
    share = colocated_share(stage)
    if least <= share * memory:
        return None
    needed = math.ceil(100 * least / memory) / 100
    ways = [f"raise it to {needed:g}"] if needed <= 0.9 else []
    ways += [f"`vllm_tensor_parallel_size: {parts * 2}`", "`vllm_mode: server`"]
    return UsageError(
        f"{place}.vllm_gpu_memory_utilization: {share:g} of {memory:.1f} GiB does not hold"
        f" {shape.name} in vLLM, which needs {least:.1f} GiB on each GPU",
        hint=", or ".join(ways),
    )


def _beside(
    stage: Stage, shape: ModelShape, cluster: Cluster, found: Sequence[Layout]
) -> list[Layout]:
    """One node that the server and the trainers fill together: 7 and 1, 6 and 2, …"""
    pins = stage.resources
    if pins.gpus is not None or (pins.nodes or 1) > 1:
        return []
    wholes = [each for each in found if each.on_gpus and each.nodes == 1]
    nodes = {(each.partition.name, each.group): each for each in wholes}
    filled = []
    for layout in nodes.values():
        least = next(iter(_counts(stage, shape, cluster, layout.group)), 0)
        if 0 < least < layout.group.gpus:
            filled.append(replace(layout, per_node=layout.group.gpus - least))
    return filled


def _placed(stage: Stage, shape: ModelShape, cluster: Cluster, layout: Layout) -> Layout | None:
    if not layout.on_gpus:
        apart = layout.nodes > 1
        fits = not apart or layout.nodes < layout.group.nodes
        return replace(layout, server=1, apart=apart) if fits else None
    counts = _counts(stage, shape, cluster, layout.group)
    if layout.nodes == 1:
        room = layout.group.gpus - layout.per_node
        least = next((count for count in counts if count <= room), None)
        if least is not None:
            return replace(layout, server=least)
    most = [count for count in counts if count <= layout.per_node]
    if most and layout.nodes < layout.group.nodes:
        return replace(layout, server=most[-1], apart=True)
    return None


def _counts(stage: Stage, shape: ModelShape, cluster: Cluster, group: NodeGroup) -> list[int]:
    """Numbers of GPUs of a node that hold the server, ascending."""
    pin, memory = stage.resources.server_gpus, _gpu_gib(cluster, group)
    every = [pin] if pin else [n for n in range(1, group.gpus + 1) if divides(shape, n)]
    if memory is None:
        # A type of unknown memory is refused further on, with the way out.
        return every
    usable = server_share(stage) * memory * GIB
    return [n for n in every if server_memory(stage, shape, n, cluster.device).total <= usable]


def _nowhere(
    stage: Stage, shape: ModelShape, cluster: Cluster, found: Sequence[Layout]
) -> LauncherError:
    groups = list({each.group: each for each in found})
    if any(_counts(stage, shape, cluster, group) for group in groups):
        offers = "; ".join(f"{g.nodes} × {g.gpus or g.cpus} {g.gpu or 'CPUs'}" for g in groups)
        return UsageError(
            f"stages.{stage.name}.resources: the trainers leave no room for the vLLM server"
            f" ({offers})",
            hint="lower `gpus`, `nodes` or `server_gpus` (the server's GPUs come on top of"
            " `gpus`), or use `vllm_mode: colocate`",
        )
    group = max(groups, key=lambda each: (_gpu_gib(cluster, each) or 0) * each.gpus)
    most = stage.resources.server_gpus or max(
        (n for n in range(1, group.gpus + 1) if divides(shape, n)), default=1
    )
    needs = server_memory(stage, shape, most, cluster.device).total / GIB
    usable = server_share(stage) * (_gpu_gib(cluster, group) or 0)
    return DoesNotFit(
        f"stages.{stage.name}: no node holds the vLLM server of {shape.name}: on {most} ×"
        f" {group.gpu} it needs {needs:.1f} GiB a GPU, {usable:.1f} usable",
        hint="lower `data.max_prompt_tokens` or `train.max_completion_length`, or choose a larger"
        " GPU type",
    )


def _gpu_gib(cluster: Cluster, group: NodeGroup) -> float | None:
    gpu = cluster.gpus.get(group.gpu or "")
    return gpu.memory_gib if gpu is not None else None


def _sizes(shape: ModelShape) -> str:
    heads = f"{shape.heads} attention heads, {shape.kv_heads} of keys and values"
    return f"the {heads}, and MLPs {shape.intermediate} wide of {shape.name}"


def _near(shape: ModelShape, wanted: int) -> str:
    below = max((n for n in range(1, wanted) if divides(shape, n)), default=1)
    above = next((n for n in range(wanted + 1, shape.heads + 1) if divides(shape, n)), None)
    return f"{below} or {above}" if above is not None else str(below)
