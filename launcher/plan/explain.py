"""Why alternatives lost, and what to say when nothing fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from launcher.errors import DoesNotFit
from launcher.memory.types import GIB, Settings
from launcher.plan.layouts import Layout
from launcher.plan.search import MARGIN, Choice, Misfit, Search, usable_bytes
from launcher.plan.types import Rejected
from launcher.recipe.types import Peft

_NODES_TRIED = 64


def rejected(
    chosen: Choice, choices: Sequence[Choice], misfits: Sequence[Misfit], search: Search
) -> tuple[Rejected, ...]:
    """The alternatives of a GPU type and partition that came nearest, and why each lost.

    For each: its best other layout that fits, and its largest layout that does not; then the
    plainer settings on the chosen layout that do not fit.
    """
    lines: list[Rejected] = []
    places = {(each.layout.partition.name, each.layout.group.gpu): each for each in choices}
    for place in places:
        rivals = [
            each
            for each in choices
            if (each.layout.partition.name, each.layout.group.gpu) == place and each is not chosen
        ]
        if rivals:
            best = min(rivals, key=lambda each: each.cost)
            lines.append(Rejected(f"{best.layout}: {spell(best.settings)}", _worse(best, chosen)))
    largest: dict[tuple[str, str | None], Misfit] = {}
    for misfit in misfits:
        place = (misfit.layout.partition.name, misfit.layout.group.gpu)
        if place not in largest or misfit.layout.processes > largest[place].layout.processes:
            largest[place] = misfit
    lines += [Rejected(str(each.layout), shortfall(each)) for each in largest.values()]
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
    ways.append(_larger(closest))
    if stage.peft is None and stage.method != "evaluate":
        adapter = Search(replace(stage, peft=Peft()), search.shapes, search.cluster, search.bases)
        found = [adapter.on(each.layout) for each in misfits]
        fits = [each for each in found if isinstance(each, Choice)]
        if fits:
            ways.append(f"an adapter (`peft`) on {min(fits, key=lambda each: each.cost).layout}")
    pinned = "with these `resources` " if stage.resources != type(stage.resources)() else ""
    return DoesNotFit(
        f"stages.{stage.name}: {pinned}no allocation of cluster {search.cluster.name} holds"
        f" {stage.method}; the closest, {closest.layout}, {shortfall(closest)}",
        hint="the smallest that would: " + "; or ".join(ways),
    )


def _worse(rival: Choice, chosen: Choice) -> str:
    ratio = rival.cost / chosen.cost
    if ratio < 1.01:
        if rival.layout.partition.preemptible and not chosen.layout.partition.preemptible:
            return "costs the same, and may be preempted"
        return "costs the same"
    return f"costs {ratio:.2f} times as much, GPU-hours × price and time weighed"


def _plainer(chosen: Choice, search: Search) -> list[Rejected]:
    lines = []
    usable = usable_bytes(search.cluster, chosen.layout)
    ours = chosen.settings
    for change in _plainer_settings(ours, search):
        needs = search.estimate(change).peak
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


def _larger(closest: Misfit) -> str:
    """The closest allocation with as much memory as it lacks."""
    layout, words = closest.layout, []
    words.append(f"{layout.processes} GPUs" if layout.on_gpus else str(layout))
    if closest.on_gpu:
        words.append(f"of {math.ceil(closest.needs / GIB / (1 - MARGIN))} GiB")
    if closest.on_host:
        words.append(f"with {math.ceil(closest.host_needs / GIB)} GiB of host memory a node")
    return " ".join(words)
