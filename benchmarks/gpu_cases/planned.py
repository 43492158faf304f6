"""A case as the launcher plans it: the recipe, the plan, and what is to be expected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.gpu_cases.case import TINY, Case
from benchmarks.gpu_cases.material import Material
from launcher.cluster.types import Cluster
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.fields import trl_version
from launcher.recipe.load import recipe_of
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Recipe

STAGE = "measured"
STEPS = 3
"""Of the optimizer. Its states are there from the second on; PPO writes a rollout before the first
and the third."""
# Beside its steps a case starts four processes and imports the training stack; that it reads the
# weights, a gigabyte a second, comes on top.
_START_S = 25
_READ = 1e9
_MAKE_S = 10
_AMPLE_GIB = 4096.0


@dataclass(frozen=True)
class Planned:
    case: Case
    recipe: Recipe
    plan: Plan
    memory_bytes: int
    """Of the device."""
    hosted: bool
    """Whether the host's memory suffices to load it."""
    seconds: float
    """What the run may take."""
    making: float
    """Seconds that it takes to make the model before its first run."""

    @property
    def stage(self) -> StagePlan:
        return self.plan.stage(STAGE)

    @property
    def total(self) -> int:
        """Estimated bytes at the peak."""
        return self.stage.estimate.peak.total

    @property
    def fits(self) -> bool:
        """Whether a plan for this machine would take it: with the margin."""
        return self.total <= self.memory_bytes * (1 - self.stage.margin)


def plan(case: Case, material: Material, machine: Cluster, memory_bytes: int) -> Planned:
    """The case as a plan for `machine` (of `local_cluster`) that does not ask whether it fits.

    Nothing measured is taken into account: what is held against the measurement is the formula.
    """
    # Where nothing fits there is no plan, and how that ends is to be seen too.
    gpus = {name: replace(gpu, memory_gib=_AMPLE_GIB) for name, gpu in machine.gpus.items()}
    (place,) = machine.partitions
    groups = tuple(replace(group, memory_gib=_AMPLE_GIB) for group in place.groups)
    ample = replace(machine, gpus=gpus, partitions=(replace(place, groups=groups),))
    recipe = recipe_of(json.dumps(_recipe(case, material)), case.name)
    made = make_plan(recipe, ample, _shapes, trl_version=trl_version())
    prediction = made.stage(STAGE).prediction
    reading = _shapes(str(material.model(case.model))).parameters * 2 / _READ
    models = 3 if METHODS[case.method].online else 1
    steps = STEPS * prediction.step_seconds if prediction is not None else 0.0
    seconds = _START_S + models * reading + steps
    host = min(group.memory_gib for group in place.groups)
    return Planned(
        case=case,
        recipe=recipe,
        plan=made,
        memory_bytes=memory_bytes,
        hosted=made.stage(STAGE).allocation.host_memory_gib <= host,
        seconds=seconds,
        making=_MAKE_S + 2 * reading,
    )


_shapes = lru_cache(shape_of)


def chosen(candidates: Sequence[Planned]) -> tuple[list[Planned], list[Planned]]:
    """Those that are estimated to fit, and the two that just do not, margin or no margin.

    What would fit but for the margin is left out: how it ends says little of the estimate.
    """
    fitting = [each for each in candidates if each.fits and each.hosted]
    others = [each for each in candidates if each.total > each.memory_bytes and each.hosted]
    # Of each kind the smallest, or both would be the same at another length.
    kinds = {_kind(each.case): each for each in sorted(others, key=lambda each: -each.total)}
    return fitting, sorted(kinds.values(), key=lambda each: each.total)[:2]


def _kind(case: Case) -> tuple[str, str, bool]:
    return case.model, case.method, case.lora


def _recipe(case: Case, material: Material) -> dict[str, Any]:
    method = METHODS[case.method]
    train: dict[str, Any] = {
        "learning_rate": 1e-6,
        "max_steps": STEPS,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    data: dict[str, Any] = {"path": str(material.data(case))}
    if method.online:
        train["max_completion_length"] = case.completion
        data["max_prompt_tokens"] = case.length - case.completion
    else:
        train["max_length"] = case.length
    if case.method == "ppo":
        train["num_ppo_epochs"] = 2
    if case.method == "grpo":
        train["num_generations"] = 2
    stage: dict[str, Any] = {
        "method": case.method,
        "data": data,
        "global_batch": case.rows,
        "train": train,
    }
    if method.online:
        stage["reward_model"] = str(material.reward_model(case.model))
    recipe = {
        "launcher": 1,
        "name": "gpu-memory",
        "model": str(material.model(case.model)),
        # As trainings of the tiny model on processors are done.
        "dtype": "float32" if case.model == TINY else "bfloat16",
        "resources": {
            "gpus": 1,
            "zero_stage": 0,
            "offload": "none",
            "micro_batch": case.rows,
            "gradient_checkpointing": case.checkpointing,
        },
        "stages": {STAGE: stage},
    }
    return recipe | ({"peft": {"method": "lora", "r": 16}} if case.lora else {})
