"""The arithmetic of evaluations."""

from __future__ import annotations

import math
import random

import pytest

from launcher.worker.evaluate.statistics import (
    bootstrap,
    compare,
    mean,
    perplexity,
    quantile,
    repetition,
    win_rate,
)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    draw = random.Random(1)
    values = [draw.gauss(3, 2) for _ in range(400)]
    found = bootstrap(values, 0.95, samples=2000, seed=0)
    # 1.96 standard errors of 2 / √400 on each side.
    assert found.mean == pytest.approx(mean(values))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1, rel=0.1)
    assert found.low < found.mean < found.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = [float(i % 7) for i in range(50)]
    first = bootstrap(values, 0.95, samples=200, seed=5)
    assert first == bootstrap(values, 0.95, samples=200, seed=5)
    assert first != bootstrap(values, 0.95, samples=200, seed=6)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    values = [float(i % 7) for i in range(50)]
    narrow, wide = (bootstrap(values, c, samples=500, seed=0) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = bootstrap([2.0] * 10, 0.95, samples=100, seed=0)
    assert (found.low, found.mean, found.high) == (2.0, 2.0, 2.0)


def test_quantiles_lie_on_the_line_between_neighbours() -> None:
    assert quantile([0.0, 1.0, 4.0], 0.5) == 1.0
    assert quantile([0.0, 1.0, 4.0], 0.75) == 2.5
    assert quantile([0.0, 1.0, 4.0], 1.0) == 4.0


def test_a_tie_is_half_a_win() -> None:
    assert win_rate([1, 1, 0, 2], [0, 1, 1, 0], 0.95).mean == pytest.approx((1 + 0.5 + 0 + 1) / 4)


def test_the_interval_of_a_win_rate_is_wilsons() -> None:
    # 81 of 263, the worked example of Newcombe 1998 (Statistics in Medicine 17:857), method 3.
    found = win_rate([1.0] * 81 + [0.0] * 182, [0.5] * 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_winning_every_prompt_still_leaves_doubt() -> None:
    found = win_rate([1.0] * 10, [0.0] * 10, 0.95)
    assert found.high == 1.0
    assert found.low == pytest.approx(0.7225, abs=1e-4)


def test_a_comparison_is_made_prompt_by_prompt() -> None:
    # The prompts differ by far more than the candidates do.
    theirs = [float(i * 10) for i in range(40)]
    found = compare([value + 1 for value in theirs], theirs, 0.95, samples=200, seed=0)
    assert found.difference.low == found.difference.high == pytest.approx(1.0)
    assert found.win_rate.mean == 1.0


def test_scores_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        win_rate([1.0, 2.0], [1.0], 0.95)


def test_repetition_is_the_share_of_ngrams_seen_before() -> None:
    assert repetition([1, 2, 3, 4, 5], 3) == 0
    assert repetition([1, 2, 1, 2, 1, 2], 2) == pytest.approx(3 / 5)
    assert repetition([7] * 9, 4) == pytest.approx(5 / 6)
    assert repetition([1, 2], 3) == 0


def test_perplexity_weighs_tokens_not_rows() -> None:
    # One token of probability 1/2, and three of 1/8: ten halvings in four tokens.
    found = perplexity([(math.log(1 / 2), 1), (0.0, 0), (3 * math.log(1 / 8), 3)], 0.95, 200, 0)
    assert found.mean == pytest.approx(2 ** (10 / 4))
    assert found.low == pytest.approx(2) and found.high == pytest.approx(8)


def test_no_tokens_have_no_perplexity() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        perplexity([(0.0, 0)], 0.95, 10, 0)
