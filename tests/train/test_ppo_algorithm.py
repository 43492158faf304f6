"""GAE, both losses and whitening against the papers' formulas, written out in plain Python."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from launcher.worker.ppo import algorithm, rollout
from launcher.worker.ppo.kl import KLController

SEEDS = range(5)


def ragged(
    seed: int, rows: int = 4, width: int = 7
) -> tuple[random.Random, list[int], torch.Tensor]:
    """A generator, completion lengths with the longest and the shortest possible, and the mask."""
    rng = random.Random(seed)
    lengths = [width, 1, *(rng.randint(1, width) for _ in range(rows - 2))]
    mask = torch.tensor([[1 if t < length else 0 for t in range(width)] for length in lengths])
    return rng, lengths, mask


def numbers(rng: random.Random, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Random everywhere, also on the padding, which must not count."""
    return torch.tensor(
        [[rng.gauss(0, scale) for _ in row] for row in mask.tolist()], dtype=torch.float64
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_advantages_are_the_discounted_sums_of_later_td_errors(seed: int) -> None:
    rng, lengths, mask = ragged(seed)
    rewards, values = numbers(rng, mask), numbers(rng, mask)
    gamma, lam = rng.random(), rng.random()

    advantages, returns = algorithm.gae(rewards, values, mask, gamma, lam)

    for row, length in enumerate(lengths):
        r, v = rewards[row].tolist(), values[row].tolist()
        v_next = [v[t + 1] if t + 1 < length else 0.0 for t in range(length)]
        delta = [r[t] + gamma * v_next[t] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** k * delta[t + k] for k in range(length - t))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-12)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-12)
        assert not advantages[row, length:].any()
        assert not returns[row, length:].any()


def test_lambda_one_makes_returns_the_rewards_to_go() -> None:
    rng, lengths, mask = ragged(0)
    rewards, values = numbers(rng, mask), numbers(rng, mask)

    _, returns = algorithm.gae(rewards, values, mask, 1.0, 1.0)

    for row, length in enumerate(lengths):
        for t in range(length):
            to_go = sum(rewards[row, t:length].tolist())
            assert returns[row, t].item() == pytest.approx(to_go, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_policy_loss_is_the_clipped_surrogate_of_the_paper(seed: int) -> None:
    rng, _, mask = ragged(seed)
    new, old, advantages = (numbers(rng, mask, 0.5) for _ in range(3))
    epsilon = 0.2

    loss, clipped = algorithm.clipped_policy_loss(new, old, advantages, epsilon)

    for row in range(mask.size(0)):
        for t in range(mask.size(1)):
            ratio = math.exp(new[row, t].item() - old[row, t].item())
            a = advantages[row, t].item()
            bounded = min(max(ratio, 1 - epsilon), 1 + epsilon)
            assert loss[row, t].item() == pytest.approx(-min(ratio * a, bounded * a), abs=1e-12)
            left_the_range = (a > 0 and ratio > 1 + epsilon) or (a < 0 and ratio < 1 - epsilon)
            assert clipped[row, t].item() is left_the_range


def test_the_policy_loss_has_no_gradient_where_it_is_clipped() -> None:
    new = torch.tensor([[0.5, 0.1, -0.5, -0.5]], requires_grad=True)
    advantages = torch.tensor([[1.0, 1.0, -1.0, 1.0]])

    loss, clipped = algorithm.clipped_policy_loss(new, torch.zeros(1, 4), advantages, 0.2)
    loss.sum().backward()

    assert clipped.tolist() == [[True, False, True, False]]
    assert new.grad is not None
    assert (new.grad == 0).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_value_loss_is_half_the_larger_squared_error(seed: int) -> None:
    rng, _, mask = ragged(seed)
    new, old, returns = (numbers(rng, mask) for _ in range(3))
    reach = 0.3

    loss, clipped = algorithm.clipped_value_loss(new, old, returns, reach)

    for row in range(mask.size(0)):
        for t in range(mask.size(1)):
            v, v_old, target = new[row, t].item(), old[row, t].item(), returns[row, t].item()
            near = min(max(v, v_old - reach), v_old + reach)
            errors = (v - target) ** 2, (near - target) ** 2
            assert loss[row, t].item() == pytest.approx(0.5 * max(errors), abs=1e-12)
            if abs(errors[1] - errors[0]) > 1e-12:
                assert clipped[row, t].item() is (errors[1] > errors[0])


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_leaves_variance_one_over_the_tokens_alone(shift_mean: bool) -> None:
    rng, _, mask = ragged(3)
    x = numbers(rng, mask, 4.0) + 7.0
    kept = [v for row, m in zip(x.tolist(), mask.tolist(), strict=True) for v in row[: sum(m)]]
    mean = sum(kept) / len(kept)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in kept) / (len(kept) - 1))

    white = algorithm.whiten(x, mask, shift_mean=shift_mean)

    expected = [(v - mean) / deviation + (0.0 if shift_mean else mean) for v in kept]
    assert white[mask.bool()].tolist() == pytest.approx(expected, abs=1e-6)
    assert not white[~mask.bool()].any()


def test_processes_that_add_their_sums_whiten_as_one_would() -> None:
    rng, _, mask = ragged(4, rows=6)
    x = numbers(rng, mask)
    halves = [(x[:2], mask[:2]), (x[2:], mask[2:])]
    # What an all-reduce gives: sums over both halves, first of count and total, then of squares.
    count_and_sum = sum(torch.stack([m.sum().double(), (h * m).sum()]) for h, m in halves)
    mean = count_and_sum[1] / count_and_sum[0]
    squares = sum(((h - mean) ** 2 * m).sum() for h, m in halves)

    def total(sums: torch.Tensor) -> torch.Tensor:
        return count_and_sum if sums.ndim else squares

    parts = [algorithm.whiten(h, m, total=total) for h, m in halves]

    assert torch.allclose(torch.cat(parts), algorithm.whiten(x, mask))


def test_the_score_is_paid_on_the_last_token_and_kl_on_each() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    log_ratio = torch.tensor([[0.1, -0.2, 0.3], [0.4, 9.0, 9.0]])

    rewards = algorithm.token_rewards(torch.tensor([2.0, -1.0]), log_ratio, mask, 0.5)

    assert torch.allclose(rewards, torch.tensor([[-0.05, 0.1, 1.85], [-1.2, 0.0, 0.0]]))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_kl_estimators_come_near_the_divergence_of_two_distributions(
    estimator: algorithm.KLEstimator,
) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(20, generator=generator, dtype=torch.float64)
    policy = logits.log_softmax(0)
    near = (logits + 0.1 * torch.randn(20, generator=generator, dtype=torch.float64)).log_softmax(0)
    exact = (policy.exp() * (policy - near)).sum().item()

    # The expectation over tokens as the policy draws them, written out.
    estimate = (policy.exp() * algorithm.kl_estimate(policy - near, estimator)).sum().item()

    # k2 is biased, by less than a tenth this near.
    assert estimate == pytest.approx(exact, rel=0.1 if estimator == "k2" else 1e-9)
    if estimator != "k1":
        assert (algorithm.kl_estimate(policy - near, estimator) >= 0).all()


def test_the_adaptive_weight_rises_above_the_target_and_falls_below_it() -> None:
    controller = KLController(0.1, target=6.0, horizon=1000)

    controller.update(kl=6.6, completions=100)  # a tenth too much
    assert controller.coef == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    controller.coef = 0.1
    controller.update(kl=600.0, completions=100)  # the error counts as 0.2 at most
    assert controller.coef == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    controller.coef = 0.1
    controller.update(kl=0.0, completions=100)
    assert controller.coef == pytest.approx(0.1 * (1 - 0.2 * 0.1))


def test_a_fixed_weight_stays_and_leaves_no_file(tmp_path: Path) -> None:
    controller = KLController(0.1)

    controller.update(kl=100.0, completions=100)
    controller.save(tmp_path)

    assert controller.coef == 0.1
    assert not list(tmp_path.iterdir())


def test_columns_that_are_padding_in_every_row_are_trimmed() -> None:
    batch = {
        "prompt_ids": torch.tensor([[0, 0, 5], [0, 6, 7]]),
        "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]),
        "values": torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]]),
        "num_items_in_batch": torch.tensor(3),
    }

    trimmed = rollout.trimmed(batch)

    assert trimmed["prompt_ids"].tolist() == [[0, 5], [6, 7]]
    assert trimmed["completion_ids"].tolist() == [[1, 2], [3, 0]]
    assert trimmed["values"].shape == trimmed["completion_mask"].shape == (2, 2)
    assert trimmed["num_items_in_batch"] == 3


def test_rows_that_are_mixed_anew_stay_together() -> None:
    torch.manual_seed(1)
    ids = torch.arange(8)
    batches = [
        {
            "completion_ids": part[:, None],
            "values": 10.0 * part,
            "num_items_in_batch": torch.tensor(8),
        }
        for part in ids.split(2)
    ]

    mixed = rollout.shuffled(batches)

    assert [len(batch["values"]) for batch in mixed] == [2] * 4
    found = torch.cat([batch["completion_ids"] for batch in mixed]).squeeze(-1)
    assert found.tolist() != ids.tolist() and sorted(found.tolist()) == ids.tolist()
    assert torch.equal(torch.cat([batch["values"] for batch in mixed]), 10.0 * found)
