"""Which model shape fills each role of a stage, followed through the graph of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from launcher.errors import UsageError
from launcher.memory.models import REWARDS
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS, Method
from launcher.recipe.types import Recipe, Stage, stage_of

Shapes = Callable[[str], ModelShape] | Mapping[str, ModelShape]


def role_shapes(
    recipe: Recipe, stage: Stage, look_up: Callable[[str], ModelShape]
) -> dict[str, ModelShape]:
    """Role → shape, and `rewards.LABEL` → that of a reward model among the rewards. `evaluate` gets
    `candidate`: the largest of its candidates.

    A stage trains what it is given, so `stage:x` has the shape of x's own main model.
    Raises UsageError, with the key path, where a shape cannot be had.
    """
    found = {
        role: _shape(recipe, reference, look_up, f"stages.{stage.name}.{role}")
        for role, reference in stage.models.items()
    }
    for reward in stage.rewards:
        if reward.model is not None:
            role = f"{REWARDS}{reward.label}"
            found[role] = _shape(recipe, reward.model, look_up, f"stages.{stage.name}.{role}")
    if stage.candidates:
        found["candidate"] = max(
            (
                _shape(recipe, reference, look_up, f"stages.{stage.name}.candidates.{label}")
                for label, reference in stage.candidates.items()
            ),
            key=lambda shape: shape.parameters,
        )
    for role in METHODS[stage.method].required_roles:
        if role not in found:
            raise UsageError(
                f"stages.{stage.name}.{role}: {stage.method} needs a {role.replace('_', ' ')}",
                hint=f"add `{role}: stage:NAME`, a folder, or a hub name",
            )
    if stage.method == "evaluate" and "candidate" not in found:
        raise UsageError(
            f"stages.{stage.name}.candidates: evaluate needs at least one model",
            hint="add `candidates: {sft: stage:sft}`",
        )
    return found


def caching(shapes: Shapes) -> Callable[[str], ModelShape]:
    """`shapes` as a function that asks for each reference once."""
    known: dict[str, ModelShape] = {}

    def look_up(reference: str) -> ModelShape:
        if reference not in known:
            if not isinstance(shapes, Mapping):
                known[reference] = shapes(reference)
            elif reference in shapes:
                known[reference] = shapes[reference]
            else:
                raise UsageError(f"the sizes of model `{reference}` are not known")
        return known[reference]

    return look_up


def _shape(
    recipe: Recipe, reference: str, look_up: Callable[[str], ModelShape], place: str
) -> ModelShape:
    name, made = stage_of(reference), False
    while name is not None:
        try:
            upstream = recipe.stage(name)
        except KeyError:
            raise UsageError(
                f"{place}: there is no stage `{name}`",
                hint="stages: " + ", ".join(each.name for each in recipe.stages),
            ) from None
        method = METHODS[upstream.method]
        if method.result == "report":
            raise UsageError(f"{place}: stage `{name}` ({upstream.method}) makes no model")
        # Whatever a stage starts from, it leaves a whole model.
        made = upstream.use is None
        reference = upstream.use or _root(upstream, method, place)
        name = stage_of(reference)
    try:
        found = look_up(reference)
    except UsageError as error:
        raise UsageError(f"{place}: {error.message}", hint=error.hint) from error
    return replace(found, adapter=False) if made else found


def _root(stage: Stage, method: Method, place: str) -> str:
    """The model whose shape the stage's result has: of a program, its first input."""
    if stage.command is None:
        return stage.models[method.main_role]
    if not stage.command.inputs:
        raise UsageError(
            f"{place}: the size of the model that stage `{stage.name}` gives is not known",
            hint=f"name what it starts from: `stages.{stage.name}.inputs: {{base: NAME}}`",
        )
    return next(iter(stage.command.inputs.values()))
