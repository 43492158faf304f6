"""From a stage's predicted length: its time limit, and when it is told to stop. Pure."""

from __future__ import annotations

import math

from launcher.plan.choices import Choice
from launcher.plan.layouts import DEFAULT_MINUTES, Layout
from launcher.plan.step_time import asked, sequences
from launcher.plan.types import Disk, Prediction
from launcher.plan.work import Work
from launcher.recipe.types import Resources

ROOM = 1.5
"""Time limit over predicted length. A stage that reaches its limit is not lost: it goes on from its
checkpoint, in a job that waits in the queue again."""
SPARE_MINUTES = 10
"""On top: for a file system that is slow to wake."""
LEAST_LEAD_S = 120
"""Before the end of the limit: Slurm may send the signal a minute early, and counts in halves."""


def prediction(choice: Choice, work: Work, *, known: bool, peak: float) -> Prediction:
    """How fast the stage will be. `known`: whether the speed of its machines is; `peak`: FLOP/s of
    one GPU, 0 for processors."""
    length, processes = choice.duration, choice.layout.processes
    step = length.step
    rate = sequences(work, choice.settings) / step.seconds
    mfu = rate * asked(work) / (peak * processes) if peak else None
    return Prediction(
        step_seconds=step.seconds,
        slowest_step_seconds=step.slowest,
        tokens_per_second=rate * work.tokens,
        mfu=mfu,
        steps=length.steps if work.counted else None,
        seconds=length.seconds if work.counted else None,
        gpu_hours=choice.gpu_hours if work.counted else None,
        cost=choice.cost if work.counted else None,
        doubt=_doubt(choice.layout, work, known=known),
    )


def _doubt(layout: Layout, work: Work, *, known: bool) -> str:
    if not known:
        what = layout.group.gpu if layout.on_gpus and layout.group.gpu else "the processors"
        return f"the speed of {what} is not known"
    if not work.counted:
        return "the rows of the data are not known (`data.rows`)"
    if not work.measured:
        return "the lengths of the data are not known (`data.mean_tokens`)"
    return ""


def disk(choice: Choice) -> Disk:
    """What the stage writes."""
    saves = choice.duration.saves
    return Disk(
        checkpoint_bytes=saves.bytes,
        checkpoints=saves.kept,
        model_bytes=choice.duration.model_bytes,
        save_seconds=saves.seconds,
    )


def minutes(layout: Layout, pins: Resources, predicted: Prediction) -> int:
    """The time limit: the recipe's, else the predicted length with room, never above the
    partition's. Without a prediction to trust, the partition's own, else a day."""
    longest = layout.partition.max_time_minutes
    if pins.time_minutes is not None:
        return pins.time_minutes
    if predicted.doubt or predicted.seconds is None:
        return longest or DEFAULT_MINUTES
    wanted = _sensible(predicted.seconds / 60 * ROOM + SPARE_MINUTES)
    return min(wanted, longest) if longest is not None else wanted


def _sensible(wanted: float) -> int:
    """Rounded up to quarters of an hour, from 4 hours on to halves, from 12 hours on to hours."""
    unit = 15 if wanted <= 4 * 60 else 30 if wanted <= 12 * 60 else 60
    return math.ceil(wanted / unit) * unit


def signal_lead_s(choice: Choice, time_minutes: int) -> int:
    """Seconds before the end at which the stage is told to stop: the slowest step, a checkpoint,
    and a minute. At most half of the limit, so that something is done before."""
    length = choice.duration
    lead = math.ceil((length.step.slowest + length.saves.seconds + 60) / 10) * 10
    return min(max(lead, LEAST_LEAD_S), time_minutes * 60 // 2)
