"""What a small change of a recipe would buy: the stage planned again, each change for itself.

None of these is made for the user: they change what is learned, or how fast. They are planned over
the same layouts, by the same search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher.memory.lengths import lengths
from launcher.memory.models import residents
from launcher.plan.choices import Choice
from launcher.plan.layouts import Layout
from launcher.plan.search import Search, device_bytes
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Peft, Stage

WORTH = 0.75
"""A change that saves less than a quarter of the GPU-hours, and no GPU, is not told."""
LEAST_HOURS = 0.5
"""Nor one that saves fewer GPU-hours than this."""


@dataclass(frozen=True)
class _Change:
    what: str
    stage: Stage
    fewest: bool = False
    """On as few GPUs as can be, of no larger memory; else on no more of the plan's own."""


def advice(chosen: Choice, layouts: list[Layout], search: Search) -> tuple[str, ...]:
    """Sentences, one a change that is worth it."""
    if not METHODS[search.stage.method].trains:
        return ()
    found = []
    for change in _changes(search, chosen):
        best = _best(search.of(change.stage), change, chosen, layouts)
        if best is not None and _worth(best, chosen):
            found.append(f"{change.what} fits on {_where(best)}{_saving(best, chosen)}")
    return tuple(found)


def _best(search: Search, change: _Change, chosen: Choice, layouts: list[Layout]) -> Choice | None:
    own = chosen.layout
    largest = device_bytes(search.cluster, own)
    sizes: dict[int, list[Layout]] = {}
    for each in layouts:
        alike = (each.partition.name, each.group) == (own.partition.name, own.group)
        if alike or (change.fewest and device_bytes(search.cluster, each) <= largest):
            sizes.setdefault(each.processes, []).append(each)
    if not change.fewest:
        return search.best(
            [each for size in sizes if size <= chosen.layout.processes for each in sizes[size]]
        )
    fits = (search.best(sizes[size]) for size in sorted(sizes))
    return next((found for found in fits if found is not None), None)


def _changes(search: Search, chosen: Choice) -> Iterator[_Change]:
    stage, pins = search.stage, search.stage.resources
    if pins.gradient_checkpointing is False:
        freed = replace(stage, resources=replace(pins, gradient_checkpointing=None))
        yield _Change("gradient checkpointing (`resources.gradient_checkpointing: auto`)", freed)
    if stage.peft is None:
        # On as few GPUs as can be: that is what people ask of an adapter.
        yield _Change("LoRA (`peft: {r: 16}`)", replace(stage, peft=Peft()), fewest=True)
    elif stage.peft.quantization is None:
        packed = replace(stage.peft, quantization="nf4")
        yield _Change("QLoRA (`peft.quantization: nf4`)", replace(stage, peft=packed), fewest=True)
    if METHODS[stage.method].online and stage.train.get("num_mini_batches", 1) > 1:
        once = replace(stage, train={**stage.train, "num_mini_batches": 1})
        yield _Change("`train.num_mini_batches: 1` (smaller rollouts)", once)
    shorter = _shorter(search)
    if shorter is not None:
        yield shorter


def _shorter(search: Search) -> _Change | None:
    """Half the length."""
    stage = search.stage
    length = lengths(stage, residents(stage, search.shapes)[0].shape)
    key = "max_completion_length" if METHODS[stage.method].online else "max_length"
    half = (length.completion if METHODS[stage.method].online else length.total) // 2
    if half < 128:
        return None
    train: Mapping[str, Any] = {**stage.train, key: half}
    return _Change(f"`train.{key}: {half}`", replace(stage, train=train))


def _worth(best: Choice, chosen: Choice) -> bool:
    if chosen.offloads and not best.offloads:
        return True
    saved = chosen.gpu_hours - best.gpu_hours
    fewer = best.layout.processes < chosen.layout.processes
    return (fewer and best.gpu_hours < 1.5 * chosen.gpu_hours) or (
        best.gpu_hours < WORTH * chosen.gpu_hours and saved >= LEAST_HOURS
    )


def _where(best: Choice) -> str:
    gib = f" ({best.estimate.peak.total / 2**30:.0f} GiB)" if best.layout.on_gpus else ""
    return f"{best.layout.size}{gib}"


def _saving(best: Choice, chosen: Choice) -> str:
    words = f": {spell_hours(best.gpu_hours)} GPU-hours instead of {spell_hours(chosen.gpu_hours)}"
    if chosen.offloads and not best.offloads:
        words += ", without offload"
    return words


def spell_hours(hours: float) -> str:
    """`0.3`, `4.2`, `131`."""
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.1f}"
