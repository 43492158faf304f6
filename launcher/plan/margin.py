"""How much of a GPU a plan keeps free, learned from how far its estimates were off. Pure.

A run's error is the share of its measured peak that the (corrected) estimate missed,
e = 1 − estimate ÷ measured. A stage is taken to fit where estimate ≤ memory × (1 − margin); then it
does fit whenever its own error is at most the margin. So the margin is an upper bound of the next
error of that kind, at a level of 99 %:

- n ≥ 99: the ⌈0.99 (n + 1)⌉-th smallest error. For exchangeable errors of any distribution the next
  one is no larger with probability ≥ 0.99 (order statistics; Vovk, Gammerman and Shafer,
  "Algorithmic Learning in a Random World", 2005: the split conformal bound).
- 20 ≤ n < 99: no order statistic reaches that level, the largest guarantees n ÷ (n + 1) only. So
  the largest error, and no less than the normal prediction bound mean + t(0.99, n − 1) · s ·
  √(1 + 1/n) (Hahn and Meeker, "Statistical Intervals", 1991, section 4.8).
- n < 20: 10 %, and no less than the largest error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

COVERAGE = 0.99
"""Share of plans that are to fit."""
CONSERVATIVE = 0.10
"""Kept free under `FEW` observations of a kind. Ninety public single-GPU runs whose sequences had
one length stayed within 8 %; varying lengths fragment the allocator's memory more."""
FEW = 20
LEAST = 0.02
"""Kept free in any case: errors of the runs to come are drawn from other models, too."""
MOST = 0.5
"""A kind whose estimates miss more than half says that something else is wrong."""


@dataclass(frozen=True)
class Margin:
    """How much of a GPU is kept free."""

    value: float
    """Share of the device's memory kept free."""
    reason: str
    """Why it is that, in words for the plan."""


def learned(errors: Sequence[float]) -> Margin:
    """The margin for a kind of stage with these errors (see the module); in [LEAST, MOST].

    It is never below the largest error while there are fewer than 99.
    """
    n = len(errors)
    if n < FEW:
        value = max([CONSERVATIVE, *errors])
        words = f"fewer than {FEW} runs of this kind"
        if value > CONSERVATIVE:
            words = "the run of this kind" if n == 1 else f"the worst of {n} runs of this kind"
        return _bounded(value, words)
    rank = math.ceil(COVERAGE * (n + 1))
    if rank <= n:
        return _bounded(sorted(errors)[rank - 1], f"from {n} runs of this kind")
    from statistics import fmean, stdev

    normal = fmean(errors) + t_quantile(n - 1) * stdev(errors) * math.sqrt(1 + 1 / n)
    return _bounded(max(*errors, normal), f"from {n} runs of this kind")


def t_quantile(freedom: int) -> float:
    """Student's t at 0.99, for 10 degrees of freedom and more (within 0.2 %).

    The Cornish–Fisher expansion of Abramowitz and Stegun, 26.7.5.
    """
    z = 2.3263478740408408
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _bounded(value: float, reason: str) -> Margin:
    # Rounded up, so that what a plan prints is what it keeps.
    rounded = math.ceil(round(value * 1000, 6)) / 1000
    return Margin(min(max(rounded, LEAST), MOST), reason)
