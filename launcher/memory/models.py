"""Which models sit on a GPU for a stage, and how many of their parameters train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.memory.lora import adapter_parameters
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage


@dataclass(frozen=True)
class Resident:
    """One model: its frozen and its trained parameters (counts)."""

    role: str
    shape: ModelShape
    frozen: int
    trained: int

    @property
    def parameters(self) -> int:
        return self.frozen + self.trained


def residents(stage: Stage, shapes: Mapping[str, ModelShape]) -> tuple[Resident, ...]:
    """The models of a stage, the one that trains (or generates) first.

    `shapes` is keyed by role; for `evaluate`, `candidate` is the largest of the candidates.
    The reference is the policy at its start, where the recipe names no other: with an adapter the
    frozen base is that, and without a KL penalty none is loaded.
    """
    if stage.method == "evaluate":
        return tuple(
            Resident(role, shapes[role], _size(role, shapes[role]), 0)
            for role in ("candidate", "reference", "reward_model")
            if role in shapes
        )
    main_role = METHODS[stage.method].main_role
    main = shapes[main_role]
    found = [_trained(stage, main_role, main)]
    if METHODS[stage.method].online:
        policy = stage.models.get(main_role)
        is_policy = stage.models.get("reference", policy) == policy
        if stage.train.get("kl_coef") != 0 and not (stage.peft is not None and is_policy):
            reference = shapes.get("reference", main)
            found.append(Resident("reference", reference, reference.parameters, 0))
        if "value_model" in shapes:
            value = shapes["value_model"]
            found.append(Resident("value_model", value, 0, _size("value_model", value)))
        reward = shapes["reward_model"]
        found.append(Resident("reward_model", reward, _size("reward_model", reward), 0))
    return tuple(found)


def _trained(stage: Stage, role: str, shape: ModelShape) -> Resident:
    # A reward model has a score of one output in place of the LM head; PPO's value head is one
    # such row beside it.
    whole = shape.trunk_parameters if stage.method == "reward" else shape.parameters
    head = shape.hidden if stage.method in ("reward", "ppo") else 0
    if stage.peft is None:
        return Resident(role, shape, 0, whole + head)
    return Resident(role, shape, whole, adapter_parameters(stage.peft, shape) + head)


def _size(role: str, shape: ModelShape) -> int:
    scores = role in ("reward_model", "value_model")
    return shape.trunk_parameters + shape.hidden if scores else shape.parameters
