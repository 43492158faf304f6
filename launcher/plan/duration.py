"""How long a stage takes from its first process to its last file, checkpoints included. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from launcher.memory.optimizers import optimizer
from launcher.memory.types import Settings
from launcher.plan.speed import Speed
from launcher.plan.step_time import StepTime, step_time
from launcher.plan.work import Work

STARTUP_S = 90.0
"""Imports, process groups, first kernels, while every GPU of the allocation waits."""
SERVER_STARTUP_S = 120.0
"""Until a vLLM server answers: it loads, compiles, captures its graphs; then training begins."""
KEPT = 2
"""Committed checkpoints that the worker leaves at least, since the newest may turn out to be
damaged; and where the recipe does not say (`save_total_limit`)."""
FAILURE_FREE_S = 1000 * 3600.0
"""Between two failures of a node. Llama 3's training had one in 6,000 hours (arXiv:2407.21783,
section 3.3.4); smaller sites look after their nodes less."""
PREEMPTED_S = 4 * 3600.0
"""Between two preemptions."""
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 600.0, 3600.0


@dataclass(frozen=True)
class Saves:
    """The checkpoints of a stage."""

    bytes: int
    """Of one; 0: the stage makes none."""
    seconds: float
    """Of one: the model file by one process, optimizer states by all."""
    steps: int | None
    """Between two; None: not by steps, or none."""
    kept: int
    """That may lie on the disk at once, one that is being written included."""


@dataclass(frozen=True)
class Duration:
    """How long a stage takes, and what it leaves."""

    step: StepTime
    steps: int
    saves: Saves
    model_bytes: int
    """What the stage leaves."""
    seconds: float
    """All of it, without waiting in the queue."""

    @property
    def hours(self) -> float:
        return self.seconds / 3600


def duration(work: Work, settings: Settings, speed: Speed, *, preemptible: bool) -> Duration:
    """How long the stage takes under `settings` at `speed`."""
    step = step_time(work, settings, speed)
    half = work.stage.dtype != "float32"
    width = 2 if half else 4
    loading = work.parameters * width / speed.storage
    steps = work.steps
    if not work.trains:
        # Each candidate is loaded, and answers its rows batch by batch.
        steps *= math.ceil(work.rows / settings.processes / settings.micro_batch)
        loading *= work.steps
    model = work.main.weights * width if work.trains else 0
    saves = _saves(work, settings, speed, step, preemptible=preemptible)
    count = math.ceil(steps / saves.steps) if saves.steps else 0
    start = STARTUP_S + (SERVER_STARTUP_S if settings.server_gpus else 0.0)
    total = start + loading + steps * step.seconds + count * saves.seconds
    total += model / speed.storage
    return Duration(step, steps, saves, model, total)


def _saves(
    work: Work, settings: Settings, speed: Speed, step: StepTime, *, preemptible: bool
) -> Saves:
    """Where the recipe states no interval it is Young's: √(2 × time to save × time between
    failures), the least loss in sum (Young, CACM 17(9), 1974), between ten minutes and an hour."""
    train = work.stage.train
    strategy = train.get("save_strategy", "steps")
    if not work.trains or strategy == "no":
        return Saves(0, 0.0, None, 0)
    model, states = _checkpoint(work, settings)
    nodes = max(1, settings.processes // settings.processes_per_node)
    seconds = model / speed.storage + states / (speed.storage * nodes)
    left = kept(train.get("save_total_limit", KEPT))
    # The best is kept too, and one is being written.
    there = (left or KEPT) + bool(train.get("load_best_model_at_end")) + 1
    if strategy != "steps":
        return Saves(round(model + states), seconds, None, there)
    stated = train.get("save_steps")
    if stated:
        steps = int(stated) if stated >= 1 else math.ceil(stated * work.steps)
    elif train.get("load_best_model_at_end"):
        # Then it has to be a multiple of the evaluations' interval: left to transformers.
        return Saves(round(model + states), seconds, None, there)
    else:
        between = PREEMPTED_S if preemptible else FAILURE_FREE_S / nodes
        interval = math.sqrt(2 * seconds * between)
        longest = LONGEST_INTERVAL_S if speed.known else SHORTEST_INTERVAL_S
        interval = min(max(interval, SHORTEST_INTERVAL_S), longest)
        steps = min(_round(interval / max(step.seconds, 1e-6)), work.steps)
    # The last step is always saved.
    count = math.ceil(work.steps / steps)
    return Saves(round(model + states), seconds, steps, min(there, count) if left else count)


def kept(limit: int | None) -> int | None:
    """How many committed checkpoints the worker leaves under a `save_total_limit`; None: all."""
    return max(KEPT, limit) if limit is not None and limit > 0 else None


def _checkpoint(work: Work, settings: Settings) -> tuple[float, float]:
    """Bytes of a checkpoint's model file, and of what all processes write beside it.

    Without DeepSpeed trained weights are float32, with two moments; DeepSpeed adds a float32 master
    to weights in half precision, and below ZeRO 3 writes the weights once more. Frozen weights are
    in no checkpoint.
    """
    trained = float(work.trained)
    if settings.zero_stage == 0:
        rule = optimizer(str(work.stage.train.get("optim", "adamw_torch_fused")))
        return 4 * trained, (4 * rule.moments + rule.fixed) * trained
    width = 2 if work.stage.dtype != "float32" else 4
    again = width if settings.zero_stage < 3 else 0
    return width * trained, (12 + again) * trained


def _round(steps: float) -> int:
    """Two figures: 137 is 130."""
    whole_steps = max(1, int(steps))
    unit = int(10 ** max(0, len(str(whole_steps)) - 2))
    return whole_steps // unit * unit
