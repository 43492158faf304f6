"""The order of the stages, from what each of them needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def in_order(needs: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """The stages, each after those it needs and otherwise in the mapping's order; and a cycle.

    Where stages wait for each other the second list names them, each followed by one it waits for
    and the first again at the end; else it is empty. Names that are no stages are passed over.
    """
    order: list[str] = []
    waiting = {stage: {need for need in below if need in needs} for stage, below in needs.items()}
    while waiting:
        ready = next((stage for stage, below in waiting.items() if not below), None)
        if ready is None:
            return order, _cycle(waiting)
        order.append(ready)
        del waiting[ready]
        for below in waiting.values():
            below.discard(ready)
    return order, []


def _cycle(waiting: Mapping[str, set[str]]) -> list[str]:
    trail = [next(iter(waiting))]
    while trail[-1] not in trail[:-1]:
        trail.append(min(waiting[trail[-1]]))
    return trail[trail.index(trail[-1]) :]
