"""What recipes say of methods and adapters, planned, and what is refused before a run is made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.plan.runnable import check_runnable
from launcher.plan.work import work_of
from launcher.recipe.load import load_recipe
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Data, Peft, Recipe
from launcher.run import folder
from tests.unit.command import launcher
from tests.unit.planning import MIXED, TINY, plan

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
{"    rewards: {short: {function: length, options: {max: 8}}}" if METHODS[method].judged else ""}
{more}
"""
    )
    return load_recipe(str(folder / "r.yaml"))


@pytest.mark.parametrize("method", TRAIN)
def test_a_method_is_checked_planned_and_run(method: str, tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, method), MIXED)
    check_runnable(planned)
    stage = planned.stage("align")
    assert stage.stage.models == {"policy": "Qwen/Qwen2.5-0.5B"}
    assert stage.sequences_per_step == 32
    assert stage.estimate.peak.total > 2**30


def test_a_row_of_kto_never_comes_alone_unless_its_loss_compares_none(tmp_path: Path) -> None:
    alone = recipe(tmp_path, "kto", "    resources: {micro_batch: 1}")
    with pytest.raises(UsageError, match=r"stages\.align: KTO compares the rows of a micro-batch"):
        folder.create(tmp_path / "runs", plan(alone, MIXED), {}, new=False)
    dry = launcher("submit", "r.yaml", "--dry-run", "--cluster", "mixed", folder=tmp_path, code=2)
    assert "stages.align: KTO compares the rows of a micro-batch" in dry.err and not dry.out
    assert not (tmp_path / "runs").exists()
    apart = replace(alone.stages[0], train={"loss_type": "apo_zero_unpaired"})
    check_runnable(plan(replace(alone, stages=(apart,)), MIXED))


@pytest.mark.parametrize(
    ("columns", "more", "rows"),
    [
        (("prompt", "completion", "label"), "", 20_000),
        (("chosen", "rejected"), "", 40_000),
        (("good", "bad"), "columns: {chosen: good, rejected: bad}", 40_000),
        # What is not read makes no pairs.
        (
            ("prompt", "completion", "label", "chosen", "rejected"),
            "keep: [prompt, completion, label]",
            20_000,
        ),
        # Rows that are not here are what the recipe says of their columns.
        (None, "", 20_000),
        (None, "columns: {chosen: good, rejected: bad}", 40_000),
        (None, "keep: [chosen, rejected]", 40_000),
    ],
)
def test_a_pair_is_two_rows_of_kto(
    tmp_path: Path, columns: tuple[str, ...] | None, more: str, rows: int
) -> None:
    path = "owner/rows"
    if columns is not None:
        path = "./rows.jsonl"
        (tmp_path / "rows.jsonl").write_text(json.dumps(dict.fromkeys(columns, "a")))
    (tmp_path / "r.yaml").write_text(
        f"""
launcher: 1
name: pairs
model: tiny/none
stages:
  align:
    method: kto
    data: {{path: {path}, rows: 20000, {more}}}
    global_batch: 64
"""
    )
    stage = load_recipe(str(tmp_path / "r.yaml")).stage("align")
    work = work_of(stage, {"policy": TINY}, 64)
    assert (work.rows, work.steps) == (rows, 3 * -(-rows // 64))


def test_a_pair_is_one_row_of_dpo(tmp_path: Path) -> None:
    given = recipe(tmp_path, "dpo").stage("align")
    pairs = replace(given, data=Data("/pairs", rows=20_000, pairs=True))
    assert work_of(pairs, {"policy": TINY}, 64).steps == 3 * 313


def test_an_adapter_on_a_quantized_base_is_planned_and_run(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, "dpo", "    peft: {quantization: nf4}"), MIXED)
    check_runnable(planned)


def test_a_recipe_states_adapters_on_a_quantized_base_and_decomposed_ones(tmp_path: Path) -> None:
    more = "    peft: {r: 8, quantization: nf4-double, dora: true}"
    assert recipe(tmp_path, "kto", more).stages[0].peft == Peft(
        r=8, quantization="nf4-double", dora=True
    )


def test_every_method_names_the_roles_and_columns_that_it_takes() -> None:
    for method in (each for each in METHODS.values() if each.config is not None):
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
