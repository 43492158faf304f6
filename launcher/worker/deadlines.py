"""How long a trainer may be silent, and how long it may take to stop. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan.types import StagePlan

HANG_FLOOR_S = 600.0
"""Without a sign of life amid steps. A file system that stalls for minutes is no hang."""
SLOWER = 20.0
"""How much slower than the plan predicts a step may be: the least accurate predictions are for
machines whose speed is not known."""
LOADING_S = 3600.0
"""Without a sign of life before the first step and while saving: 72 billion parameters from a
shared file system, and kernels to compile, take their time."""
TERM_S = 25.0
"""From SIGTERM to the end, where no warning came before: Slurm kills after `KillWait`, 30 s where
the site does not say otherwise, and a receipt and a requeue must fit before that."""
REQUEUE_S = 15.0
"""What the supervisor needs after its trainer's end: receipt, verdict, requeue."""


@dataclass(frozen=True)
class Silence:
    """Seconds without a sign of life after which a trainer is taken for hung; None: for ever."""

    steps: float | None
    slow: float | None


def silence(planned: StagePlan) -> Silence:
    """How long the stage's trainers may be silent.

    The recipe's `resources.hang_timeout` counts between steps; while loading and saving it counts
    only where it is longer than what these are given anyway. A program of the user's is known to
    live by what it prints, and is not waited for only where the recipe says how long.
    """
    stated = planned.stage.resources.hang_timeout_s
    if planned.stage.command is not None:
        return Silence(stated, stated)
    predicted = planned.prediction.slowest_step_seconds if planned.prediction else 0.0
    steps = float(stated) if stated is not None else max(HANG_FLOOR_S, SLOWER * predicted)
    saving = planned.disk.save_seconds if planned.disk is not None else 0.0
    return Silence(steps, max(LOADING_S, SLOWER * saving, steps))


def to_stop(signal_lead_s: float, warned: bool) -> float:
    """Seconds that a trainer may take to stop. `warned`: from USR2 on, which comes `signal_lead_s`
    before the end; else from TERM on."""
    if not warned:
        return TERM_S
    return max(signal_lead_s - REQUEUE_S, signal_lead_s / 2)
