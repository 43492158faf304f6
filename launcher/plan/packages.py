"""Packages beside the training stack that a recipe's functions need where they run. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.plan.agreement import Finding
from launcher.recipe.library import MATH, named, options_of, package_of
from launcher.recipe.types import Recipe


def needed(recipe: Recipe) -> Iterator[tuple[str, Finding]]:
    """Package → what is to be said where it is not installed, in the order of the recipe."""
    for stage in recipe.stages:
        if stage.use is not None:
            continue
        named_here = [
            (f"rewards.{reward.label}", reward.function, reward.options)
            for reward in stage.rewards
            if reward.function is not None
        ]
        named_here += [
            (f"scores.{label}", score.function, score.options)
            for label, score in stage.scores.items()
        ]
        for key, function, stated in named_here:
            options = options_of(function, stated) if function in named() else stated
            package = package_of(function, options)
            if package is not None:
                yield package, Finding(f"stages.{stage.name}.{key}", _said(function, package))


def _said(function: str, package: str) -> str:
    if package == MATH:
        text = f"{function} reads answers in LaTeX with math-verify, which is not installed here; "
        return text + "install it where trainings run: pip install math-verify"
    text = f"{function} is imported where the training runs, and there is no module {package} here;"
    return text + " install its package there, or name a file (FILE.py:FUNCTION)"
