"""Signs of trouble: in a training that generates, from what it logged; in pairs of answers. Pure.

Rewards that tell nothing apart teach nothing; a policy that has collapsed says one thing; one that
hacks its reward drifts from the reference, or writes ever more, or ever less. What to do about each
is in `docs/rewards.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from launcher.plan.types import Plan
from launcher.records import metrics, pairs
from launcher.records.metrics import Row
from launcher.records.paths import RunPaths, StagePaths

WINDOW = 10
"""Rollouts (as logged) that are averaged: the last ones, beside as many first ones."""
FLAT_GROUPS = 0.8
"""Share of groups whose completions all got one reward."""
FLAT_STD = 0.05
"""The rewards' standard deviation over that of the first rollouts, where there are no groups."""
ENTROPY_FALL = 0.25
"""Entropy a token over that of the first rollouts."""
CLIPPED = 0.5
"""Share of completions that end at the limit."""
LONGER, SHORTER = 2.0, 0.25
"""Mean length over that of the first rollouts."""
KL_TOKEN = 0.5
"""Nats a token from the reference."""

_GROUPS = "frac_reward_zero_std"
"""Logged of each rollout of groups, also where nothing in it got a reward."""

Kind = Literal["unjudged", "flat rewards", "mode collapse", "clipped", "length", "kl", "pairs"]


@dataclass(frozen=True)
class Sign:
    kind: Kind
    text: str
    """A sentence without its full stop, with the figures."""


def of_run(run: RunPaths, plan: Plan) -> dict[str, tuple[Sign, ...]]:
    """Stage → its signs, of stages that have any."""
    found = {
        planned.name: (*_of_pairs(stage), *signs(metrics.read(stage.metrics)))
        for planned in plan.stages
        if planned.runs and (stage := run.stage(planned.name))
    }
    return {stage: each for stage, each in found.items() if each}


def _of_pairs(stage: StagePaths) -> tuple[Sign, ...]:
    found = pairs.read(stage)
    return tuple(Sign("pairs", text) for text in found.warnings) if found is not None else ()


def signs(rows: Sequence[Row]) -> tuple[Sign, ...]:
    """The signs in a stage's rows, each a step's figures as TRL (or our PPO) names them.

    None where no completions are judged: elsewhere an entropy that falls is what is wanted.
    """
    if not any("reward" in row or _GROUPS in row for row in rows):
        return ()
    checks: tuple[tuple[Kind, Callable[[Sequence[Row]], str | None]], ...] = (
        ("unjudged", _unjudged),
        ("flat rewards", _flat),
        ("mode collapse", _collapsed),
        ("clipped", _clipped),
        ("length", _length),
        ("kl", _far),
    )
    return tuple(Sign(kind, text) for kind, check in checks if (text := check(rows)) is not None)


@dataclass(frozen=True)
class _Course:
    """A figure's mean in the first rollouts (NaN where they are among the last) and the last."""

    first: float
    last: float


def _course(rows: Sequence[Row], figure: Callable[[Row], float | None]) -> _Course | None:
    values = [value for row in rows if (value := figure(row)) is not None]
    if len(values) < WINDOW:
        return None
    early = values[:WINDOW] if len(values) >= 2 * WINDOW else [math.nan]
    return _Course(_mean(early), _mean(values[-WINDOW:]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _named(key: str) -> Callable[[Row], float | None]:
    return lambda row: row.get(key)


def _a_token(key: str, whole: str) -> Callable[[Row], float | None]:
    """`key`, or what online DPO logs for whole completions over their length."""

    def figure(row: Mapping[str, float]) -> float | None:
        if key in row:
            return row[key]
        length = row.get("completions/mean_length")
        return row[whole] / length if whole in row and length else None

    return figure


def _unjudged(rows: Sequence[Row]) -> str | None:
    last = [row for row in rows if _GROUPS in row][-WINDOW:]
    if len(last) < WINDOW or any("reward" in row for row in last):
        return None
    return "no judge says anything of any completion: there is nothing to learn from"


def _flat(rows: Sequence[Row]) -> str | None:
    groups = _course(rows, _named(_GROUPS))
    if groups is not None:
        if groups.last < FLAT_GROUPS:
            return None
        reward = _course(rows, _named("reward"))
        mean = "" if reward is None else f" (the mean is {reward.last:.3g})"
        return (
            f"in {groups.last:.0%} of the groups every completion gets the same reward{mean}:"
            " there is nothing to learn from them"
        )
    spread = _course(rows, _named("reward_std"))
    if spread is None or not (spread.last <= FLAT_STD * spread.first or spread.last == 0):
        return None
    return f"rewards hardly differ any more: their deviation is {spread.last:.3g}" + (
        "" if math.isnan(spread.first) else f", it was {spread.first:.3g}"
    )


def _collapsed(rows: Sequence[Row]) -> str | None:
    entropy = _course(rows, _a_token("entropy", "objective/entropy"))
    if entropy is None or not entropy.last < ENTROPY_FALL * entropy.first:
        return None
    return (
        f"the policy's entropy fell from {entropy.first:.3g} to {entropy.last:.3g} nats a token:"
        " it says nearly the same each time"
    )


def _clipped(rows: Sequence[Row]) -> str | None:
    clipped = _course(rows, _named("completions/clipped_ratio"))
    if clipped is None or clipped.last < CLIPPED:
        return None
    return f"{clipped.last:.0%} of the completions are cut off at the length limit"


def _length(rows: Sequence[Row]) -> str | None:
    length = _course(rows, _named("completions/mean_length"))
    if length is None:
        return None
    if length.last >= LONGER * length.first:
        went = "grew"
    elif length.last <= SHORTER * length.first:
        went = "shrank"
    else:
        return None
    words = f"completions {went} from {length.first:.0f} to {length.last:.0f} tokens"
    return words + _while_reward_rose(rows)


def _far(rows: Sequence[Row]) -> str | None:
    kl = _course(rows, _a_token("kl", "objective/kl"))
    if kl is None or abs(kl.last) <= KL_TOKEN:
        return None
    words = f"the policy is {kl.last:.3g} nats a token from its reference"
    return words + _while_reward_rose(rows)


def _while_reward_rose(rows: Sequence[Row]) -> str:
    reward = _course(rows, _named("reward"))
    if reward is None or not reward.last > reward.first:
        return ""
    return (
        f" while the reward rose from {reward.first:.3g} to {reward.last:.3g}:"
        " read some answers, it may be hacked"
    )
