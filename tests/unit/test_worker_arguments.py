"""What a trainer is given of a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.types import StagePlan
from launcher.recipe.types import Stage
from launcher.records.paths import RunPaths
from launcher.worker import arguments
from launcher.worker.context import Context
from tests.unit.planning import STAND_INS, pinned, plan, recipe, stage


def context(given: Stage, root: Path, **changed: Any) -> Context:
    """The first rank's, with its stage's plan changed."""
    made = plan(recipe(given), STAND_INS)
    planned: StagePlan = replace(made.stages[0], **changed)
    return Context(
        run=RunPaths(root),
        plan=made,
        stage_plan=planned,
        token="token",
        start="1",
        rank=0,
        world=planned.allocation.processes,
        local_rank=0,
        phase_started=0.0,
    )


ZERO_3 = stage("ppo", model="tiny", resources=pinned(gpus=2, zero_stage=3))


@pytest.mark.parametrize("gather", [True, False])
def test_ppo_generates_as_its_memory_was_planned(tmp_path: Path, gather: bool) -> None:
    given = arguments.keywords(context(ZERO_3, tmp_path, gather_for_generation=gather))
    assert given["ds3_gather_for_generation"] is gather


def test_a_recipe_pins_how_ppo_generates_through_the_plan(tmp_path: Path) -> None:
    given = replace(ZERO_3, train={"ds3_gather_for_generation": False})
    assert arguments.keywords(context(given, tmp_path))["ds3_gather_for_generation"] is False


def test_sft_has_no_key_of_generation(tmp_path: Path) -> None:
    given = arguments.keywords(context(stage("sft", model="tiny"), tmp_path))
    assert "ds3_gather_for_generation" not in given


def test_what_models_are_loaded_with_is_not_left_for_a_trainer_that_loads_none(
    tmp_path: Path,
) -> None:
    chosen = {"model_init_kwargs": {"attn_implementation": "eager"}}
    given = arguments.keywords(context(stage("sft", model="tiny", train=chosen), tmp_path))
    assert "model_init_kwargs" not in given


def test_checkpoints_come_as_often_as_planned_unless_the_recipe_says(tmp_path: Path) -> None:
    given = arguments.keywords(context(stage("sft", model="tiny"), tmp_path, save_steps=37))
    assert given["save_steps"] == 37
    stated = stage("sft", model="tiny", train={"save_steps": 0.1})
    assert arguments.keywords(context(stated, tmp_path))["save_steps"] == 0.1
