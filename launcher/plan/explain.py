"""Why alternatives lost, and what to say when nothing fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from launcher.errors import DoesNotFit
from launcher.memory.types import GIB, Settings
from launcher.plan.layouts import Layout
from launcher.plan.search import Choice, Misfit, Search
from launcher.plan.types import Rejected
from launcher.recipe.types import Peft

_NODES_TRIED = 64
_Found = TypeVar("_Found", Choice, Misfit)


def rejected(
    chosen: Choice, choices: Sequence[Choice], misfits: Sequence[Misfit], search: Search
) -> tuple[Rejected, ...]:
    """The alternatives of a GPU type and partition that came nearest, and why each lost.

    For each: its best other layout that fits, and its largest layout that does not; then the
    plainer settings on the chosen layout that do not fit.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for rivals in _by_place([each for each in choices if each is not chosen]).values():
        best = min(rivals, key=lambda each: each.rank)
        line = (best.layout.size, f": {spell(best.settings)}", _worse(best, chosen))
        found.setdefault(line, []).append(best.layout.partition.name)
    for failed in _by_place(misfits).values():
        largest = max(failed, key=lambda each: each.layout.processes)
        line = (largest.layout.size, "", shortfall(largest))
        found.setdefault(line, []).append(largest.layout.partition.name)
    lines = [
        Rejected(f"{size} in {' or '.join(partitions)}{how}", why)
        for (size, how, why), partitions in found.items()
    ]
    return tuple(lines + _plainer(chosen, search))


def _by_place(found: Sequence[_Found]) -> dict[tuple[str, str | None], list[_Found]]:
    """Grouped by partition and GPU type, in order."""
    grouped: dict[tuple[str, str | None], list[_Found]] = {}
    for each in found:
        place = (each.layout.partition.name, each.layout.group.gpu)
        grouped.setdefault(place, []).append(each)
    return grouped


def spell(settings: Settings) -> str:
    """The settings in words."""
    words = [f"ZeRO {settings.zero_stage}" if settings.zero_stage else "no ZeRO"]
    if settings.offload != "none":
        words.append("optimizer offloaded" if settings.offload == "optimizer" else "all offloaded")
    if settings.gradient_checkpointing:
        words.append("checkpointing")
    words.append(f"micro-batch {settings.micro_batch}")
    return ", ".join(words)


def shortfall(misfit: Misfit) -> str:
    """`needs 61.2 GiB a GPU at least (ZeRO 3, …), 36.0 usable`."""
    short = []
    if misfit.on_gpu:
        short.append((misfit.needs, "a GPU", misfit.usable))
    if misfit.on_host:
        short.append((misfit.host_needs, "of host memory a node", misfit.host_usable))
    return " and ".join(
        f"needs {needs / GIB:.1f} GiB {each} at least ({spell(misfit.settings)}),"
        f" {usable / GIB:.1f} usable"
        for needs, each, usable in short
    )


def does_not_fit(search: Search, misfits: Sequence[Misfit]) -> DoesNotFit:
    """The error that names the closest allocation and the smallest thing that would do."""
    closest = min(misfits, key=lambda each: each.excess)
    stage = search.stage
    more = _more_nodes(search, misfits)
    ways = [more] if more else []
    ways.append(_larger(closest, search.margin(closest.settings)))
    if stage.peft is None and stage.method != "evaluate":
        adapter = search.of(replace(stage, peft=Peft()))
        found = [adapter.on(each.layout) for each in misfits]
        fits = [each for each in found if isinstance(each, Choice)]
        if fits:
            ways.append(f"an adapter (`peft`) on {min(fits, key=lambda each: each.rank).layout}")
    pinned = "with these `resources` " if stage.resources != type(stage.resources)() else ""
    return DoesNotFit(
        f"stages.{stage.name}: {pinned}no allocation of cluster {search.cluster.name} holds"
        f" {stage.method}; the closest, {closest.layout}, {shortfall(closest)}",
        hint="the smallest that would: " + "; or ".join(ways),
    )


def _worse(rival: Choice, chosen: Choice) -> str:
    ratio = rival.cost / chosen.cost
    if rival.rank[0] and not chosen.rank[0]:
        return "offloads to the host, which is for what fits in no other way"
    if ratio < 1.01:
        if rival.layout.partition.preemptible and not chosen.layout.partition.preemptible:
            return "costs the same, and may be preempted"
        return "costs the same"
    return f"costs {ratio:.2f} times as much, GPU-hours × price and time weighed"


def _plainer(chosen: Choice, search: Search) -> list[Rejected]:
    lines = []
    ours = chosen.settings
    for change in _plainer_settings(ours, search):
        needs, usable = search.estimate(change).peak, search.usable(chosen.layout, change)
        if needs.total > usable:
            lines.append(
                Rejected(
                    f"{spell(change)} on the same",
                    f"needs {needs.total / GIB:.1f} GiB in {needs.name}, {usable / GIB:.1f} usable",
                )
            )
    return lines


def _plainer_settings(ours: Settings, search: Search) -> list[Settings]:
    found = []
    evaluates = search.stage.method == "evaluate"
    if ours.offload != "none":
        found.append(replace(ours, offload="none"))
    elif ours.zero_stage == 3 and not evaluates:
        found.append(replace(ours, zero_stage=2))
    elif ours.zero_stage:
        found.append(replace(ours, zero_stage=0))
    if ours.gradient_checkpointing:
        found.append(replace(ours, gradient_checkpointing=False))
    return found


def _more_nodes(search: Search, misfits: Sequence[Misfit]) -> str | None:
    """The smallest number of more nodes of a type that would hold the stage."""
    pins = search.stage.resources
    if pins.gpus is not None or pins.nodes is not None:
        return None
    found: list[tuple[int, str]] = []
    for group in {each.layout.group: each.layout for each in misfits}.values():
        if not group.on_gpus:
            continue
        for nodes in range(group.group.nodes + 1, _NODES_TRIED + 1):
            layout = Layout(group.partition, group.group, nodes, group.group.gpus)
            if search.batches(layout.processes) and isinstance(search.on(layout), Choice):
                total = layout.processes
                found.append((total, f"{nodes} nodes of {group.group.gpus} × {group.group.gpu}"))
                break
    return min(found)[1] if found else None


def _larger(closest: Misfit, margin: float) -> str:
    """The closest allocation with as much memory as it lacks."""
    layout, words = closest.layout, []
    words.append(f"{layout.processes} GPUs" if layout.on_gpus else str(layout))
    if closest.on_gpu:
        words.append(f"of {math.ceil(closest.needs / GIB / (1 - margin))} GiB")
    if closest.on_host:
        words.append(f"with {math.ceil(closest.host_needs / GIB)} GiB of host memory a node")
    return " ".join(words)
