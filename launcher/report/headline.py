"""A finished stage's result in the few figures that it was run for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

FIGURES = (
    "eval_accuracy", "eval_margin", "eval_rewards/accuracies", "eval_rewards/margins", "reward",
    "objective/scores", "objective/kl", "kl", "eval_loss", "train_loss",
)  # fmt: skip
"""As trainers name them; what was held out comes before what was trained on."""
MOST = 2


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """At most `MOST` figures of `metrics`, the most telling first."""
    return {name: metrics[name] for name in [n for n in FIGURES if n in metrics][:MOST]}


def text(figures: Mapping[str, float]) -> str:
    """`eval_accuracy 0.83, eval_margin 1.2`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
