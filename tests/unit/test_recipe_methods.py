"""Methods that can be checked, estimated and planned before they can be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.plan.runnable import check_runnable
from launcher.recipe.load import load_recipe
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Peft, Recipe
from launcher.run import folder
from tests.unit.planning import MIXED, plan

TRAIN = {
    "dpo": "{loss_type: [sigmoid], beta: 0.1, max_length: 2048}",
    "kto": "{desirable_weight: 1.0, max_length: 2048}",
    "grpo": "{num_generations: 8, max_completion_length: 1024, beta: 0.04}",
    "rloo": "{num_generations: 4, max_completion_length: 512}",
}


def recipe(folder: Path, method: str, more: str = "") -> Recipe:
    (folder / "r.yaml").write_text(
        f"""
launcher: 1
name: {method}
model: Qwen/Qwen2.5-0.5B
stages:
  align:
    method: {method}
    data: {{path: owner/rows, max_prompt_tokens: 256}}
    global_batch: 32
    train: {TRAIN[method]}
{more}
"""
    )
    return load_recipe(str(folder / "r.yaml"))


@pytest.mark.parametrize("method", TRAIN)
def test_a_method_that_is_not_run_yet_is_checked_and_planned(method: str, tmp_path: Path) -> None:
    stage = plan(recipe(tmp_path, method), MIXED).stage("align")
    assert stage.stage.models == {"policy": "Qwen/Qwen2.5-0.5B"}
    assert stage.sequences_per_step == 32
    assert stage.estimate.peak.total > 2**30


@pytest.mark.parametrize("method", TRAIN)
def test_a_method_that_is_not_run_yet_is_refused_before_a_run_is_made(
    method: str, tmp_path: Path
) -> None:
    planned = plan(recipe(tmp_path, method), MIXED)
    with pytest.raises(
        UsageError, match=rf"stages\.align: `{method}` can be estimated and planned"
    ):
        folder.create(tmp_path / "runs", planned, {}, new=False)
    assert not (tmp_path / "runs").exists()


def test_a_finished_model_in_place_of_such_a_stage_is_no_hindrance(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, "dpo", "    use: owner/aligned"), MIXED)
    check_runnable(planned)


def test_an_adapter_on_a_quantized_base_is_planned_and_not_run(tmp_path: Path) -> None:
    given = recipe(tmp_path, "dpo")
    sft = replace(
        given.stages[0],
        method="sft",
        models={"model": "Qwen/Qwen2.5-0.5B"},
        train={},
        peft=Peft(quantization="nf4"),
    )
    planned = plan(replace(given, stages=(sft,)), MIXED)
    with pytest.raises(UsageError, match="an adapter on a quantized base"):
        check_runnable(planned)


def test_a_recipe_states_adapters_on_a_quantized_base_and_decomposed_ones(tmp_path: Path) -> None:
    more = "    peft: {r: 8, quantization: nf4-double, dora: true}"
    assert recipe(tmp_path, "kto", more).stages[0].peft == Peft(
        r=8, quantization="nf4-double", dora=True
    )


def test_every_method_names_the_roles_and_columns_that_it_takes() -> None:
    for method in METHODS.values():
        assert method.columns
        assert method.main_role in method.roles or method.name == "evaluate"


def test_a_recipe_states_the_shape_of_a_model_that_nothing_else_knows(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        """
launcher: 1
name: mine
model: me/secret
shapes:
  me/secret: {model_type: llama, hidden_size: 64}
stages:
  sft: {method: sft, data: {path: owner/rows}, global_batch: 8}
"""
    )
    found = load_recipe(str(tmp_path / "r.yaml"))
    assert found.shapes == {"me/secret": {"model_type": "llama", "hidden_size": 64}}
    assert found.resolved["shapes"] == found.shapes
