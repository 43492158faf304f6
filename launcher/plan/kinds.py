"""Whether the models that a recipe names are of the kind that their place asks for. Pure.

A policy would load as a reward model too, with a score of random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from launcher.models.types import Kind
from launcher.plan.agreement import Finding
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Recipe, Stage, stage_of

KindOf = Callable[[str], Kind | None]
"""A folder or hub name → what its model is; None where that is not known."""


def wrong_kinds(recipe: Recipe, kind_of: KindOf) -> list[Finding]:
    """Every model that is plainly of the other kind, stage by stage."""
    found = []
    for stage in recipe.stages:
        for key, reference, wanted in _wanted(stage):
            given = None if stage_of(reference) is not None else kind_of(reference)
            if given not in (None, wanted):
                found.append(Finding(f"stages.{stage.name}.{key}", _said(reference, wanted)))
    return found


def _wanted(stage: Stage) -> Iterator[tuple[str, str, Kind]]:
    """(key, model, kind) of each model that has to be of one kind."""
    method = METHODS[stage.method]
    if stage.use is not None:
        gives = stage.command.gives if stage.command is not None else method.result
        if gives is not None and gives != "report":
            yield "use", stage.use, gives
        return
    for role, reference in stage.models.items():
        if role == "reward_model":
            yield role, reference, "reward_model"
        elif role != "value_model" and method.result != "reward_model":
            yield role, reference, "policy"
    for label, reference in stage.candidates.items():
        yield f"candidates.{label}", reference, "policy"
    for reward in stage.rewards:
        if reward.model is not None:
            yield f"rewards.{reward.label}", reward.model, "reward_model"


def _said(reference: str, wanted: Kind) -> str:
    if wanted == "policy":
        return f"{reference} is a reward model, where a policy is needed; name a causal model"
    text = f"{reference} is a causal language model, where a reward model is needed; refer to a"
    return f"{text} stage of method `reward`, or name a model that one has trained"
