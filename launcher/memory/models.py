"""Which models sit on a GPU for a stage, and how many of their parameters train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.memory.lora import adapter_parameters, sizes
from launcher.memory.whole import spared_parameters, whole_parameters
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

REWARDS = "rewards."
"""What the role of a reward model begins with that is one of a stage's `rewards`."""


def scores(role: str) -> bool:
    """Whether the model in `role` has a score in place of the LM head."""
    return role in ("reward_model", "value_model") or role.startswith(REWARDS)


@dataclass(frozen=True)
class Resident:
    """One model: its frozen and its trained parameters (counts)."""

    role: str
    shape: ModelShape
    frozen: int
    trained: int
    adapters: bool = False
    """Whether what trains are adapters on a frozen base."""
    whole: int = 0
    """Of the trained ones, those of modules that train whole beside adapters: they keep the
    precision of a dense base."""

    @property
    def parameters(self) -> int:
        return self.frozen + self.trained

    @property
    def packed(self) -> int:
        """Weights of the blocks' linear layers: what quantization packs."""
        return self.shape.layers * sum(i * o for i, o in sizes(self.shape).values())


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
    method = METHODS[stage.method]
    main = shapes[method.main_role]
    found = [_trained(stage, method.main_role, main)]
    if _reads_reference(stage):
        reference = shapes.get("reference", main)
        found.append(Resident("reference", reference, reference.parameters, 0))
    if "value_model" in shapes:
        value = shapes["value_model"]
        found.append(Resident("value_model", value, 0, _size("value_model", value)))
    for role, reward in shapes.items():
        if scores(role) and role != "value_model":
            found.append(Resident(role, reward, _size(role, reward), 0))
    return tuple(found)


def _reads_reference(stage: Stage) -> bool:
    """Whether a reference is loaded beside the policy: a frozen base is that of its adapter."""
    policy = stage.models.get(METHODS[stage.method].main_role)
    is_policy = stage.models.get("reference", policy) == policy
    if stage.peft is not None and is_policy:
        return False
    return METHODS[stage.method].needs_reference(stage.train)


def _trained(stage: Stage, role: str, shape: ModelShape) -> Resident:
    # A reward model has a score of one output in place of the LM head; PPO's value head is one
    # such row beside it.
    judges = METHODS[stage.method].output == "score"
    base = shape.trunk_parameters if judges else shape.parameters
    head = shape.hidden if judges or stage.method == "ppo" else 0
    if stage.peft is None:
        return Resident(role, shape, 0, base + head)
    whole = whole_parameters(stage.peft, shape, head=not judges)
    adapters = adapter_parameters(stage.peft, shape) - spared_parameters(stage.peft, shape)
    trained = adapters + whole + head
    return Resident(role, shape, base, trained, adapters=True, whole=whole)


def _size(role: str, shape: ModelShape) -> int:
    return shape.trunk_parameters + shape.hidden if scores(role) else shape.parameters
