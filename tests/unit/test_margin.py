"""The margin covers the errors that were seen, and 99 % of those to come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.plan.margin import CONSERVATIVE, FEW, LEAST, MOST, learned, t_quantile

ERRORS = st.floats(-1.0, 0.45)


@given(st.lists(ERRORS, max_size=98))
def test_it_is_never_below_the_worst_error_seen_while_there_are_fewer_than_99(
    errors: list[float],
) -> None:
    assert learned(errors).value >= max(errors, default=0.0)


@given(st.lists(ERRORS, max_size=200), st.lists(st.floats(-7.0, 0.75), max_size=3))
def test_whatever_was_seen_it_is_a_share_of_the_memory(
    errors: list[float], wild: list[float]
) -> None:
    assert LEAST <= learned(errors + wild).value <= MOST


@given(st.lists(ERRORS, max_size=FEW - 1))
def test_few_runs_keep_the_conservative_margin_or_their_worst(errors: list[float]) -> None:
    found = learned(errors)
    assert found.value >= CONSERVATIVE
    if max(errors, default=0.0) < CONSERVATIVE:
        assert found.value == CONSERVATIVE
        assert found.reason == "fewer than 20 runs of this kind"


def test_runs_that_agree_earn_a_smaller_margin() -> None:
    found = learned([0.01, 0.02, 0.015] * 10)
    assert 0.02 <= found.value < 0.03
    assert found.reason == "from 30 runs of this kind"


def test_with_many_runs_one_wild_error_does_not_rule() -> None:
    errors = [0.001 * (i % 40) for i in range(199)]
    assert learned([*errors, 0.44]).value < 0.05
    assert learned([*errors[:50], 0.44]).value >= 0.44


@pytest.mark.parametrize("seen", [20, 40, 98, 99, 128])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_99_of_100_next_runs_fit(seen: int, shape: str) -> None:
    dice = random.Random(seen)

    def error() -> float:
        if shape == "normal":
            return dice.gauss(0.0, 0.04)
        # Most runs stay below the estimate, a few exceed it.
        return 0.1 - dice.expovariate(1 / 0.05)

    missed = sum(learned([error() for _ in range(seen)]).value < error() for _ in range(4000))
    assert missed / 4000 <= 0.0135


@pytest.mark.parametrize(("freedom", "known"), [(10, 2.764), (19, 2.539), (30, 2.457), (98, 2.365)])
def test_students_t_is_that_of_the_tables(freedom: int, known: float) -> None:
    assert t_quantile(freedom) == pytest.approx(known, rel=2e-3)
