"""Why alternatives lost, and what to say when nothing fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from launcher.errors import DoesNotFit
from launcher.memory.types import GIB, Settings
from launcher.plan.advice import spell_hours
from launcher.plan.choices import Choice, Misfit
from launcher.plan.search import Search
from launcher.plan.types import Rejected
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Peft

_NODES_TRIED = 64


def rejected(
    chosen: Choice, rivals: Sequence[Choice], misfits: Sequence[Misfit], search: Search
) -> tuple[Rejected, ...]:
    """Why each of the alternatives lost, then the plainer settings that do not fit.

    `rivals`: the best of each other partition and type, and of the other sizes of the chosen one.
    `misfits`: the largest layout of each that nothing fits, and the next smaller of the chosen one.
    """
    found: dict[tuple[str, str, str], tuple[list[str], Choice | None]] = {}
    for rival in sorted(rivals, key=lambda each: each.rank):
        line = (rival.layout.size, f": {spell(rival.settings)}", _worse(rival, chosen, search))
        found.setdefault(line, ([], rival))[0].append(rival.layout.partition.name)
    for failed in misfits:
        line = (failed.layout.size, "", shortfall(failed))
        found.setdefault(line, ([], None))[0].append(failed.layout.partition.name)
    lines = [
        Rejected(
            f"{size} in {' or '.join(partitions)}{how}",
            why,
            hours=rival.duration.hours if rival is not None else None,
            gpu_hours=rival.gpu_hours if rival is not None else None,
        )
        for (size, how, why), (partitions, rival) in found.items()
    ]
    return tuple(lines + _plainer(chosen, search))


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
    if stage.peft is None and METHODS[stage.method].trains:
        adapter = search.of(replace(stage, peft=Peft()))
        fits = adapter.best([each.layout for each in misfits])
        if fits is not None:
            ways.append(f"an adapter (`peft`) on {fits.layout}")
    pinned = "with these `resources` " if stage.resources != type(stage.resources)() else ""
    return DoesNotFit(
        f"stages.{stage.name}: {pinned}no allocation of cluster {search.cluster.name} holds"
        f" {stage.method}; the closest, {closest.layout}, {shortfall(closest)}",
        hint="the smallest that would: " + "; or ".join(ways),
    )


def _worse(rival: Choice, chosen: Choice, search: Search) -> str:
    if rival.offloads and not chosen.offloads:
        return "offloads to the host, which is for what fits in no other way"
    figures = f"{spell_hours(rival.duration.hours)} h"
    if rival.layout.on_gpus:
        figures += f", {spell_hours(rival.gpu_hours)} GPU-hours"
    words = f"{_compared(rival, chosen, search)} ({figures})"
    if rival.layout.partition.preemptible and not chosen.layout.partition.preemptible:
        words += ", and may be preempted"
    return words


def _compared(rival: Choice, chosen: Choice, search: Search) -> str:
    cost = rival.cost / chosen.cost
    slower = rival.duration.hours / chosen.duration.hours
    if search.objective == "gpus" and rival.layout.gpus > chosen.layout.gpus:
        return "takes more GPUs"
    if search.objective == "time" and slower > 1:
        return f"takes {slower:.2f} times as long"
    if search.objective == "start" and rival.value[0] > chosen.value[0]:
        return f"starts {_minutes(rival, chosen, search)} minutes later"
    if abs(cost - 1) < 0.01:
        return (
            "costs the same"
            if slower < 1.01
            else f"takes {slower:.1f} times as long for the same cost"
        )
    if cost > 1:
        return f"costs {cost:.2f} times as much"
    if slower > 1:
        return f"takes {slower:.1f} times as long for {cost:.2f} of the cost"
    return f"costs {cost:.2f} of that, on larger cards, kept for what needs them"


def _minutes(rival: Choice, chosen: Choice, search: Search) -> int:
    return round((search.wait_s(rival.layout) - search.wait_s(chosen.layout)) / 60)


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
    evaluates = not METHODS[search.stage.method].trains
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
            size = group.group.gpus
            layout = replace(group, nodes=nodes, per_node=size, apart=group.server > 0)
            if search.batches(layout.processes) and isinstance(search.on(layout), Choice):
                words = f"{layout.all_nodes} nodes of {size} × {group.group.gpu}"
                found.append((layout.gpus, words))
                break
    return min(found)[1] if found else None


def _larger(closest: Misfit, margin: float) -> str:
    """The closest allocation with as much memory as it lacks."""
    layout = closest.layout
    words = [f"{layout.processes} GPUs" if layout.on_gpus else str(layout)]
    if closest.on_gpu:
        words.append(f"of {math.ceil(closest.needs / GIB / (1 - margin))} GiB")
    if closest.on_host:
        words.append(f"with {math.ceil(closest.host_needs / GIB)} GiB of host memory a node")
    return " ".join(words)
