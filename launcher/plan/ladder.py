"""What a stage is given each time that it runs out of memory, the same global batch always. Pure.

Five measures, one after the other: smaller micro-batches, gradient checkpointing, higher ZeRO,
offload, more GPUs. A rung has what those before it have, and its estimate is lower. Or it is the
first of its measure and lowers another phase than the highest: it was wrong once, and nobody knows
of which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from launcher.memory.types import Phase, Settings
from launcher.plan import allocations
from launcher.plan.choices import Choice
from launcher.plan.layouts import Layout
from launcher.plan.search import Search, device_bytes
from launcher.plan.types import Allocation, Rung

LEAST_GAIN = 0.01
"""Of what torch holds at a peak: less is not worth another start."""
DOUBLINGS = 2
"""How often the GPUs are doubled, at most."""
_OFFLOADS = ("none", "optimizer", "all")

_Places = Iterator[tuple[Layout, Settings]]


def ladder(
    chosen: Choice, own: Allocation, layouts: Sequence[Layout], search: Search
) -> tuple[Rung, ...]:
    """The rungs after a plan's choice, whose allocation is `own`.

    What the recipe pins stays as it is. `layouts`: those that the stage may be given.
    """
    found: list[Rung] = []
    last, allocation = chosen, own
    for measure in (_smaller_batches, _checkpointing, _higher_zero, _offload, _more_gpus):
        tried = [search.choice(*place) for place in measure(last, layouts, search)]
        tried = [each for each in tried if _holds(each, chosen, search)]
        for choice in _worth(last, tried, frugal=measure is not _more_gpus):
            allocation = _allocation(choice, last, allocation, search)
            found.append(_rung(last, choice, allocation, own, search))
            last = choice
    return tuple(found)


def _worth(last: Choice, tried: Sequence[Choice], *, frugal: bool) -> list[Choice]:
    """Those of one measure that lower the peak, one after the other; where none does, the last of
    them (without `frugal`: the first) if it lowers another phase."""
    found: list[Choice] = []
    for choice in tried:
        before = found[-1] if found else last
        if _lower(choice.estimate.peak, before.estimate.peak):
            found.append(choice)
    if not found:
        found = [each for each in (tried[-1:] if frugal else tried[:1]) if _eases(each, last)]
    return found


def _lower(after: Phase, before: Phase) -> bool:
    return after.total < before.total and after.reserved <= before.reserved * (1 - LEAST_GAIN)


def _eases(choice: Choice, last: Choice) -> bool:
    """Whether a phase takes less, and none more than the highest did."""
    after, before = choice.estimate, {phase.name: phase for phase in last.estimate.phases}
    return after.peak.total <= last.estimate.peak.total and any(
        _lower(phase, before[phase.name]) for phase in after.phases if phase.name in before
    )


def _smaller_batches(last: Choice, _: Sequence[Layout], search: Search) -> _Places:
    """Half and less, down to the smallest that the method and the recipe allow."""
    most = last.settings.micro_batch / 2
    for micro, accumulation in reversed(search.batches(last.layout.processes)):
        if micro <= most:
            most = micro / 2
            yield (
                last.layout,
                replace(last.settings, micro_batch=micro, accumulation=accumulation),
            )


def _checkpointing(last: Choice, _: Sequence[Layout], search: Search) -> _Places:
    for each in search.settings(last.layout):
        if (
            each.gradient_checkpointing > last.settings.gradient_checkpointing
            and each.offload == last.settings.offload
            and _sharding(each) == _sharding(last.settings)
        ):
            yield last.layout, each


def _higher_zero(last: Choice, _: Sequence[Layout], search: Search) -> _Places:
    for each in sorted(_alike(last, last.layout, search), key=_sharding):
        if each.offload == last.settings.offload and _sharding(each) > _sharding(last.settings):
            yield last.layout, each


def _offload(last: Choice, _: Sequence[Layout], search: Search) -> _Places:
    own = _OFFLOADS.index(last.settings.offload)
    for kind in _OFFLOADS[own + 1 :]:
        for each in sorted(_alike(last, last.layout, search), key=_sharding):
            if each.offload == kind and _sharding(each) >= _sharding(last.settings):
                yield last.layout, each


def _more_gpus(last: Choice, layouts: Sequence[Layout], search: Search) -> _Places:
    """Twice as many and more, on the same kind of node where it has them, sharded as far as may
    be."""
    memory = device_bytes(search.cluster, last.layout)
    near = sorted(
        (each for each in layouts if device_bytes(search.cluster, each) >= memory),
        key=lambda each: _distance(each, last.layout),
    )
    for doubling in range(1, DOUBLINGS + 1):
        least = last.layout.processes * 2**doubling
        for layout in near:
            if layout.processes < least:
                continue
            settings = _utmost(last, layout, search)
            if settings is not None and search.fits(layout, settings):
                yield layout, settings
                break


def _utmost(last: Choice, layout: Layout, search: Search) -> Settings | None:
    """The highest ZeRO on `layout`, everything else as it was last."""
    own = last.settings
    found = [each for each in _alike(last, layout, search) if each.offload == own.offload]
    gather = own.gather_for_generation
    return max(
        found,
        key=lambda each: (each.zero_stage, each.gather_for_generation == gather),
        default=None,
    )


def _alike(last: Choice, layout: Layout, search: Search) -> list[Settings]:
    """Settings on `layout` that checkpoint as the last did."""
    checkpointing = last.settings.gradient_checkpointing
    return [
        each for each in search.settings(layout) if each.gradient_checkpointing == checkpointing
    ]


def _sharding(settings: Settings) -> tuple[int, bool]:
    """How far the states are divided: ZeRO 3 generates from whole weights, or from parts."""
    return settings.zero_stage, not settings.gather_for_generation


def _distance(layout: Layout, own: Layout) -> tuple[object, ...]:
    return (
        (layout.partition.name, layout.group) != (own.partition.name, own.group),
        layout.group.gpu != own.group.gpu,
        layout.partition.preemptible,
        layout.processes,
        layout.nodes,
        layout.partition.name,
    )


def _holds(choice: Choice, chosen: Choice, search: Search) -> bool:
    """Whether a node, and what the recipe asks of it, has host memory enough."""
    pin, group = search.stage.resources.host_memory_gib, choice.layout.group
    # A recipe may ask for less than the plan itself is thought to need.
    least = allocations.host_gib(search, chosen)
    return allocations.host_gib(search, choice) <= max(pin or group.memory_gib, least)


def _allocation(choice: Choice, last: Choice, held: Allocation, search: Search) -> Allocation:
    """What `choice` is given: what the last had, `held`, where that does."""
    if choice.layout != last.layout:
        return allocations.allocation(search, choice, allocations.prediction(search, choice))
    needs = float(allocations.host_gib(search, choice))
    pinned = search.stage.resources.host_memory_gib is not None
    # Without Slurm nobody holds a stage to what it asked for.
    if pinned or needs <= held.host_memory_gib or search.cluster.engine != "slurm":
        return held
    return replace(held, host_memory_gib=needs)


def _rung(
    before: Choice, choice: Choice, allocation: Allocation, own: Allocation, search: Search
) -> Rung:
    settings = choice.settings
    return Rung(
        what=_what(before, choice),
        allocation=allocation,
        same_allocation=allocation == own,
        keeps_checkpoints=_states(choice) == _states(before),
        zero_stage=settings.zero_stage,
        offload=settings.offload,
        gradient_checkpointing=settings.gradient_checkpointing,
        micro_batch=settings.micro_batch,
        accumulation=settings.accumulation,
        gather_for_generation=settings.gather_for_generation,
        estimate=choice.estimate,
        margin=search.margin(settings),
        calibration=search.calibration(settings),
        deepspeed=allocations.deepspeed(search, settings),
    )


def _states(choice: Choice) -> tuple[object, ...]:
    """What the states in a checkpoint are divided by."""
    return choice.layout.processes, choice.settings.zero_stage, choice.settings.offload


def _what(before: Choice, after: Choice) -> str:
    was, now = before.settings, after.settings
    words = []
    if after.layout != before.layout:
        moved = after.layout.partition != before.layout.partition
        words.append(str(after.layout) if moved else after.layout.size)
    if now.micro_batch != was.micro_batch:
        words.append(f"micro-batch {now.micro_batch}")
    if now.gradient_checkpointing != was.gradient_checkpointing:
        words.append("gradient checkpointing")
    if now.zero_stage != was.zero_stage:
        words.append(f"ZeRO {now.zero_stage}")
    if now.gather_for_generation != was.gather_for_generation:
        words.append("generation in parts")
    if now.offload != was.offload:
        words.append("all offloaded" if now.offload == "all" else "optimizer offloaded")
    return " + ".join(words)
