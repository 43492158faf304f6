"""The matrix of methods: which trainings it is made of, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import methods as benchmark
from benchmarks.methods_matrix import learning
from benchmarks.methods_matrix.cells import METHODS, SETUPS, Cell, cells, recipe
from benchmarks.methods_matrix.matrix import YES, Row, table
from launcher.cluster.profile import load_profile
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.plan.types import Plan
from launcher.recipe import methods
from launcher.recipe.load import load_recipe

ADAPTERS_AND_SETUPS = 8
MODEL = str(Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "model")


def row(method: str = "sft", adapter: str = "full", setup: str = "one", **said: str) -> Row:
    found = {"train": YES, "next": YES, "resume": YES, **said}
    return Row(method, adapter, setup, {k: v for k, v in found.items() if v}, seconds=1.0)


def test_every_method_that_trains_is_in_the_matrix() -> None:
    trained = {m.name for m in methods.METHODS.values() if m.config and m.result != "report"}
    assert trained == set(METHODS)
    assert len(cells()) == len(METHODS) * ADAPTERS_AND_SETUPS


def test_words_keep_to_what_fits_all_kinds_of_them() -> None:
    assert cells(["dpo", "lora", "zero2"]) == [Cell("dpo", "lora", "zero2")]
    assert {cell.method for cell in cells(["sft", "ppo"])} == {"sft", "ppo"}
    assert len(cells(["zero3"])) == len(METHODS) * 2
    with pytest.raises(ValueError, match="zero4: not one of sft, "):
        cells(["zero4"])


@pytest.mark.parametrize("following", [True, False], ids=["followed", "stopped"])
def test_every_cells_recipe_is_planned_as_the_cell_says(following: bool, tmp_path: Path) -> None:
    for cell in cells(SETUPS):
        plan = planned(recipe(cell, MODEL, following=following), tmp_path)
        names = [each.name for each in plan.stages]
        assert names == [METHODS[cell.method].stage, *(["next"] if following else [])]
        first = plan.stages[0]
        assert first.stage.method == cell.method
        assert (first.stage.peft is not None) == (cell.adapter == "lora")
        assert first.allocation.processes == (1 if cell.setup == "one" else 2)
        assert first.zero_stage == {"one": 0, "zero2": 2, "zero3": 3}[cell.setup]


def test_every_seeds_recipe_is_planned_with_its_seed(tmp_path: Path) -> None:
    for cell in cells(["seeds"]):
        (stage,) = planned(learning.recipe(cell, 3, MODEL, MODEL), tmp_path).stages
        assert stage.stage.seed == 3
        assert learning.GOALS[cell.method].least(cell.adapter) > 0


def planned(document: dict[str, Any], folder: Path) -> Plan:
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump(document))
    cluster = load_profile("dev")
    return make_plan(load_recipe(str(path)), cluster, shape_of, trl_version="1.16.0")


def test_the_gain_is_between_the_first_steps_and_the_last(tmp_path: Path) -> None:
    told = [1.0, 1.0, 1.0, 1.0, 9.0, 3.0, 3.0, 3.0, 5.0]
    lines = [json.dumps({"step": n, "reward": each}) for n, each in enumerate(told)]
    lines.append(json.dumps({"step": 9, "reward": 99.0, "train_runtime": 1.0}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert learning.gain(tmp_path / "metrics.jsonl", "reward") == 2.5
    assert learning.gain(tmp_path / "metrics.jsonl", "-reward") == -2.5


def test_the_table_has_a_line_a_method_and_adapter_and_says_what_was_wrong() -> None:
    rows = [
        row(),
        row(setup="zero2", resume="weights of model/ up to 1.0e-07 apart"),
        row("ppo", "lora", "zero3", train="failed: no", resume="", next=""),
        Row("sft", "full", "seeds", {"learns": YES}, 1.0, (2.2, 2.4, 2.123)),
    ]
    lines = table(rows).splitlines()
    assert lines[0] == "| method | adapter | 1 process | ZeRO-2 | ZeRO-3 | 3 seeds |"
    assert lines[2:4] == [
        "| sft | full | all | train, next | – | loss -2.2, -2.4, -2.1 (-2 wanted) |",
        "| ppo | lora | – | – | none | – |",
    ]
    assert lines[-2:] == [
        "- sft, full, ZeRO-2, resume: weights of model/ up to 1.0e-07 apart",
        "- ppo, lora, ZeRO-3, train: failed: no",
    ]
    assert len(table(rows[:1]).splitlines()) == 3


def test_the_page_has_the_table_of_what_has_been_run() -> None:
    rows = benchmark.rows_of(json.loads(benchmark.RESULTS.read_text()))
    page = benchmark.PAGE.read_text()
    assert benchmark.page(page, rows) == page
