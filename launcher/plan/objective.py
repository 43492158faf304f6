"""What a plan is to be good at, as one order of all allocations that hold a stage. Pure."""

from __future__ import annotations

import math
from typing import Literal

Objective = Literal["cost", "time", "gpus", "start"]
"""`cost`: GPU-hours × price, `time`: the shortest stage, `gpus`: the fewest GPUs, `start`: the one
that can begin first."""

OVERNIGHT_HOURS = 12.0
"""A stage that takes so long counts twice its GPU-hours."""
TIME_FOR_MONEY = 0.05
"""`time`: a doubled cost has to shorten the stage by a factor of 2**0.05 (3.4 %) at least."""
LARGE_CARDS = 0.585
"""A card with twice the memory counts 1.5 times its price (2**0.585): large cards are few, and for
what fits on no smaller one."""
SAME_START_S = 300.0
"""Starts that Slurm expects within this many seconds are the same."""
STEPS_OF_A_RATIO = 200
"""Values within half a per cent are the same, so that a simpler allocation goes before."""


def rank(
    objective: Objective, gpus: int, price: float, gib: float, hours: float, wait_s: float
) -> tuple[float, ...]:
    """Lower is better. `price` of a GPU-hour, `gib` of its memory (0: no GPU), `hours` of the
    stage, `wait_s` until it may begin.

    The cheapest allocation alone would be one GPU for weeks, the fastest the whole cluster for a
    few per cent. So waiting has a cost, and so have large cards: `cost` ranks by GPU-hours × price
    × (1 + hours ÷ 12) × (memory ÷ 40 GiB)**0.585, which also decides among equals under `gpus` and
    `start`.
    """
    money = gpus * price * hours
    scarce = (gib / 40) ** LARGE_CARDS if gib else 1.0
    weighed = _rough(money * (1 + hours / OVERNIGHT_HOURS) * scarce)
    if objective == "time":
        return (_rough(hours * money**TIME_FOR_MONEY),)
    if objective == "gpus":
        return gpus, weighed
    if objective == "start":
        return math.ceil(wait_s / SAME_START_S), weighed
    return (weighed,)


def _rough(value: float) -> float:
    return float(round(math.log(max(value, 1e-12)) * STEPS_OF_A_RATIO))
