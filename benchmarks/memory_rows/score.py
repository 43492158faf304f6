"""How far estimates are from what was measured. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

OVERSIZED = 1.25
"""An estimate with its margin above this multiple of the peak wastes a GPU's memory."""


@dataclass(frozen=True)
class Point:
    """One scored row. Both in GiB."""

    measured: float
    estimated: float
    margin: float = 0.0
    """Share of the memory that a plan keeps free."""

    @property
    def error(self) -> float:
        """Relative, signed: above 0 the estimate is too high."""
        return self.estimated / self.measured - 1

    @property
    def asked(self) -> float:
        """GiB of the smallest device that a plan would take: estimate ≤ device × (1 − margin)."""
        return self.estimated / (1 - self.margin)

    @property
    def undersized(self) -> bool:
        return self.measured > self.asked

    @property
    def oversized(self) -> bool:
        return self.asked > OVERSIZED * self.measured


@dataclass(frozen=True)
class Score:
    """Errors as fractions."""

    n: int
    median: float
    """Of the absolute error; so are `p95` and `max`."""
    p95: float
    max: float
    bias: float
    """Median of the signed error."""
    undersized: float
    """Share of rows whose peak exceeds the estimate with its margin."""
    oversized: float
    margin: float
    """Median."""


def score(points: Sequence[Point]) -> Score | None:
    """None for no points."""
    if not points:
        return None
    absolute = sorted(abs(point.error) for point in points)
    n = len(points)
    return Score(
        n=n,
        median=median(absolute),
        p95=quantile(absolute, 0.95),
        max=absolute[-1],
        bias=median(point.error for point in points),
        undersized=sum(point.undersized for point in points) / n,
        oversized=sum(point.oversized for point in points) / n,
        margin=median(point.margin for point in points),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """By linear interpolation between the two nearest of the ordered values."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True)
class Verdict:
    """Whether a plan would have taken a device on which a row ran, or did not."""

    ran_out: bool
    refused: bool


@dataclass(frozen=True)
class Verdicts:
    caught: int
    """Ran out of memory, and would have been refused."""
    missed: int
    """Ran out of memory, and would have been taken."""
    false_alarms: int
    """Fitted, and would have been refused."""
    fitted: int
    """Fitted, all of them."""


def verdicts(found: Sequence[Verdict]) -> Verdicts:
    out = [each for each in found if each.ran_out]
    fitted = [each for each in found if not each.ran_out]
    return Verdicts(
        caught=sum(each.refused for each in out),
        missed=sum(not each.refused for each in out),
        false_alarms=sum(each.refused for each in fitted),
        fitted=len(fitted),
    )
