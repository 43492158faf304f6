"""The recipes that ship, and the schema that they name to editors."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from launcher.recipe.document import parse, plain
from launcher.recipe.fields import LIMITS, fields
from launcher.recipe.load import load_recipe
from launcher.recipe.methods import METHODS
from launcher.recipe.owned import OWNED
from launcher.recipe.renames import RENAMES
from launcher.recipe.schema import json_schema
from launcher.recipe.sources import built_in_names
from launcher.shipped import shipped

LORA = ("", "_lora")
SIZES = ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
FILES = sorted(shipped("recipes").glob("**/*.yaml"))
JOINED = [path for path in FILES if path.parent == shipped("recipes")]


@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(json_schema())


def document(path: Any) -> Any:
    return plain(parse(path.read_bytes(), path.name, path.parent))


TRAINED = ("sft", "reward", "dpo", "kto", "ppo", "grpo", "rloo", "online_dpo")


def test_every_method_has_its_recipe_of_every_size_full_and_with_lora() -> None:
    joined = {f"{method}_{size}{peft}" for method in TRAINED for size in SIZES for peft in LORA}
    quantized = {f"{method}_{size}_qlora" for method in ("sft", "dpo") for size in SIZES[3:]}
    assert {name for name in built_in_names() if "/" not in name} == joined | quantized


@pytest.mark.parametrize("path", JOINED, ids=lambda path: path.stem)
def test_a_joined_recipe_is_its_parts_and_a_name_and_nothing_else(path: Path) -> None:
    given = document(path)
    method, size, *peft = re.match(r"(.+)_([\d.]+b)(?:_(.+))?$", path.stem).groups()  # type: ignore[union-attr]
    parts = [f"method/{method}", f"size/{size}", *(f"peft/{each}" for each in peft if each)]
    assert given == {"launcher": 1, "name": path.stem.replace("_", "-"), "extends": parts}


@pytest.mark.parametrize("peft", ["lora", "qlora"])
def test_a_recipe_with_adapters_trains_every_stage_with_them_at_their_rates(peft: str) -> None:
    for method in TRAINED if peft == "lora" else ("sft", "dpo"):
        whole = load_recipe(f"{method}_7b")
        adapted = load_recipe(f"{method}_7b_{peft}")
        for stage, full in zip(adapted.stages, whole.stages, strict=True):
            if stage.method == "evaluate":
                assert stage == full
            else:
                assert stage.peft is not None and full.peft is None
                assert stage.peft.quantization == ("nf4-double" if peft == "qlora" else None)
                assert stage.train["learning_rate"] > 4 * full.train["learning_rate"]


@pytest.mark.parametrize("name", [name for name in built_in_names() if "demo/" not in name])
def test_a_shipped_recipe_loads_without_a_note(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name.replace("/", "-").replace("_", "-")
    assert recipe.warnings == ()


@pytest.mark.parametrize("size", SIZES)
def test_a_ppo_recipe_is_the_whole_chain_of_one_size_fully_trained(size: str) -> None:
    recipe = load_recipe(f"ppo_{size}")
    assert [stage.name for stage in recipe.stages] == ["sft", "rm", "ppo", "eval"]
    model = f"Qwen/Qwen2.5-{size.upper()}-Instruct"
    assert recipe.stage("sft").models == {"model": model}
    assert recipe.stage("rm").models == {"model": "stage:sft"}
    assert recipe.stage("eval").candidates["base"] == model
    assert all(stage.peft is None for stage in recipe.stages)


@pytest.mark.parametrize("method", TRAINED)
def test_learning_rates_do_not_rise_with_the_size(method: str) -> None:
    found = [load_recipe(f"{method}_{size}").stages for size in SIZES]
    rates = [
        [each.train["learning_rate"] for each in stages if each.global_batch] for stages in found
    ]
    assert rates == sorted(rates, reverse=True)
    for of_one_stage in zip(*rates, strict=True):
        assert list(of_one_stage) == sorted(of_one_stage, reverse=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(shipped("recipes"))))
def test_a_shipped_file_names_the_schema_and_keeps_it(path: Any) -> None:
    modeline = path.read_text(encoding="utf-8").splitlines()[0]
    relative = modeline.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / relative).resolve() == shipped("recipes") / "schema.json"
    validator().validate(document(path))


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((shipped("recipes") / "schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), "write it anew: launcher schema > recipes/schema.json"


def test_the_schema_is_valid_and_refuses_what_the_loader_refuses() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    stage = {"method": "sft", "train": {"learning_rate": 1e-5}}
    assert validator().is_valid({"stages": {"sft": stage}})
    for wrong in (
        {"modle": "x"},
        {"name": "a/b"},
        {"stages": {"a.b": stage}},
        {"stages": {"sft": {**stage, "train": {"learning_rate": "fast"}}}},
        {"stages": {"sft": {**stage, "train": {"learning_rate": 0}}}},
        {"stages": {"sft": {**stage, "resources": {"zero_stage": 4}}}},
        {"methods": {"sft": {"train": {"max_steps": 0}}}},
    ):
        assert not validator().is_valid(wrong), wrong


def test_the_snapshot_knows_every_method_and_keeps_the_launchers_keys_out() -> None:
    for method in METHODS:
        assert not set(fields(method).schemas) & set(OWNED)
        assert not set(fields(method).schemas) & set(fields(method).refused)


def test_limits_and_renames_name_keys_that_exist() -> None:
    known = {key for method in METHODS for key in fields(method).schemas}
    assert set(LIMITS) <= known
    assert set(RENAMES.values()) <= known
    for method in METHODS:
        here = fields(method).schemas
        assert not [old for old, new in RENAMES.items() if old in here and new in here]
