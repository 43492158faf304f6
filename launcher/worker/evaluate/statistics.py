"""Means with intervals, win rates and repetition: plain arithmetic, seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

from launcher.records.evaluation import Comparison, Interval


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean. Raises ValueError for no values."""
    if not values:
        raise ValueError("the mean of no values")
    return math.fsum(values) / len(values)


def bootstrap(values: Sequence[float], confidence: float, samples: int, seed: int) -> Interval:
    """The mean, and its percentile bootstrap interval from `samples` resamples.

    Efron & Tibshirani 1993, chapter 13. The same arguments give the same interval.
    """
    draw = random.Random(seed)
    n = len(values)
    means = sorted(math.fsum(draw.choices(values, k=n)) / n for _ in range(samples))
    tail = (1 - confidence) / 2
    return Interval(mean(values), quantile(means, tail), quantile(means, 1 - tail))


def perplexity(
    rows: Sequence[tuple[float, int]], confidence: float, samples: int, seed: int
) -> Interval:
    """e to the mean −log p of all tokens, with its percentile bootstrap interval over the rows.

    Each row is the summed log-probability (nats) of its tokens, and how many they are: a long row
    weighs more than a short one. Raises ValueError where there is no token.
    """
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ValueError("the perplexity of no tokens")

    def of(drawn: Sequence[tuple[float, int]]) -> float:
        return math.exp(-math.fsum(s for s, _ in drawn) / sum(n for _, n in drawn))

    draw = random.Random(seed)
    found = sorted(of(draw.choices(rows, k=len(rows))) for _ in range(samples))
    tail = (1 - confidence) / 2
    return Interval(of(rows), quantile(found, tail), quantile(found, 1 - tail))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, linear between neighbours."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def win_rate(ours: Sequence[float], theirs: Sequence[float], confidence: float) -> Interval:
    """The share of pairs that `ours` wins, ties as half, with its Wilson score interval.

    Wilson 1927. The interval takes a win as all or nothing, so that with ties it is too wide
    rather than too narrow; unlike a bootstrap it keeps a width where every pair is won.
    """
    rate = mean(
        [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(ours, theirs, strict=True)]
    )
    n = len(ours)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(rate, max(0.0, centre - half), min(1.0, centre + half))


def compare(
    ours: Sequence[float], theirs: Sequence[float], confidence: float, samples: int, seed: int
) -> Comparison:
    """`ours` against `theirs`, scores of the same prompts in the same order."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return Comparison(
        win_rate=win_rate(ours, theirs, confidence),
        difference=bootstrap(differences, confidence, samples, seed),
    )


def repetition(tokens: Sequence[int], n: int) -> float:
    """The share of n-grams that stand earlier in `tokens` too; 0 for fewer than n tokens."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
