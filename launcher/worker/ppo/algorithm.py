"""The arithmetic of PPO on tensors: advantages, both losses, whitening.

Shapes: B completions, T tokens of the longest completion. `mask` is 1 on the tokens of a completion
and 0 on its padding, which lies to the right. Everything here is a pure function.

Sources: generalised advantage estimation is Schulman et al. 2016, arXiv:1506.02438, equations 11
to 16; the clipped losses are Schulman et al. 2017, arXiv:1707.06347, equation 7, and for the value
loss the form of its authors' code, which the RLHF papers took over (Ziegler et al. 2019,
arXiv:1909.08593). The estimators of the KL divergence are Schulman 2020, "Approximating KL
Divergence" (joschu.net/blog/kl-approx.html).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(log_ratio: Tensor, estimator: KLEstimator) -> Tensor:
    """An estimate of KL(π ‖ π_ref) from each token that π sampled, in nats; the input's shape.

    `log_ratio` is x = log π(a|s) − log π_ref(a|s). "k1" is x: unbiased, of either sign. "k2" is
    x²/2: never negative, biased. "k3" is e⁻ˣ − 1 + x: unbiased and never negative.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(-log_ratio) + log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """The reward of each token, (B, T): the KL penalty everywhere, the score on the last token.

    `scores` is (B,); `kl` is each token's estimate of the divergence from the reference, (B, T).
    """
    rewards = -kl_coef * kl * mask
    rows = torch.arange(len(scores), device=scores.device)
    last = mask.sum(dim=1).long() - 1
    rewards[rows, last] += scores
    return rewards


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns that values are fitted to, both (B, T).

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γ λ A_{t+1}, with V and A zero after the last token:
    a completion is an episode that ends there. The return is A_t + V_t, the TD(λ) target.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(values)
    following = running = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.size(1))):
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        following = values[:, t]
        advantages[:, t] = running
    return advantages, advantages + values


def clipped_policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, cliprange: float
) -> tuple[Tensor, Tensor]:
    """Per token: the negative clipped surrogate, and whether clipping took the gradient; (B, T).

    −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = π(a|s) / π_old(a|s).
    """
    ratio = torch.exp(logps - old_logps)
    plain = -ratio * advantages
    clipped = -ratio.clamp(1 - cliprange, 1 + cliprange) * advantages
    return torch.maximum(plain, clipped), clipped > plain


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, cliprange_value: float
) -> tuple[Tensor, Tensor]:
    """Per token: half the larger squared error, and whether clipping took the gradient; (B, T).

    ½ max((V − R)², (V_clip − R)²), where V_clip keeps V within ± `cliprange_value` of the value
    that the rollout was scored with.
    """
    nearby = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    plain = (values - returns).square()
    clipped = (nearby - returns).square()
    return 0.5 * torch.maximum(plain, clipped), clipped > plain


def whiten(
    x: Tensor,
    mask: Tensor,
    *,
    shift_mean: bool = True,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """`x` scaled to variance 1 (and, with `shift_mean`, mean 0) over the tokens of `mask`; (B, T).

    `total` adds a tensor of sums over all processes, so that each whitens with the same numbers.
    The variance is the unbiased one. Padding stays 0.
    """
    count, summed = total(torch.stack([mask.sum().to(x.dtype), (x * mask).sum()]))
    mean = summed / count.clamp(min=1)
    squares = total(((x - mean).square() * mask).sum())
    variance = squares / (count - 1).clamp(min=1)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask
