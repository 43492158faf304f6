"""No string of a recipe, an override, a profile or a plan reaches a shell, or adds to a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cluster.reading import parse_profile
from launcher.errors import LauncherError
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.plan.make import make_plan
from launcher.plan.types import Plan
from launcher.recipe.load import load_recipe
from tests.attacks.canary import Canary, proof, run_scripts
from tests.unit.planning import TINY, shapes

ROOT = Path(__file__).resolve().parents[2]
PROFILE = (ROOT / "slurm" / "clusters" / "dev.yaml").read_text()
Path_ = tuple[str | int, ...]

RECIPE: dict[str, Any] = {
    "launcher": 1,
    "name": "demo",
    "model": "owner/model",
    "env": {"A_VARIABLE": "text"},
    "shapes": {"owner/model": {"model_type": "qwen2"}},
    "stages": {
        "sft": {
            "method": "sft",
            "data": {"path": "owner/rows", "split": "train", "name": "main", "columns": {"a": "b"}},
            "global_batch": 8,
            "chat_template": "{{ messages }}",
            "train": {"optim": "adamw_torch", "run_name": "one", "max_steps": 4},
            "resources": {"partition": "a100", "gpu": "a100_40gb", "time": "1h"},
            "env": {"ANOTHER": "text"},
        },
        "own": {"method": "command", "command": ["echo", "{one}"], "inputs": {"one": "stage:sft"}},
    },
}


def leaves(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The way to every scalar."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, (*at, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from leaves(entry, (*at, index))
    else:
        yield at


def keys(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The way to every key of a mapping."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*at, key)
            yield from keys(entry, (*at, key))


def put(document: Any, at: Path_, value: Any) -> Any:
    """A copy with `value` at a place."""
    copy = json.loads(json.dumps(document))
    inside = copy
    for step in at[:-1]:
        inside = inside[step]
    inside[at[-1]] = value
    return copy


def renamed(document: Any, at: Path_, name: str) -> Any:
    """A copy with another key at a place."""
    copy = json.loads(json.dumps(document))
    inside = copy
    for step in at[:-1]:
        inside = inside[step]
    inside[name] = inside.pop(at[-1])
    return copy


def planned(recipe: Path | str, profile: str = PROFILE, overrides: tuple[str, ...] = ()) -> Plan:
    cluster = parse_profile(profile, "profile.yaml")
    loaded = load_recipe(str(recipe), overrides)
    return make_plan(
        loaded,
        cluster,
        lambda name: TINY if name == "owner/model" else shapes(name),
        trl_version="1.16.0",
    )


def attempt(plan: Any, folder: Path) -> bool:
    """Whether a plan was made and its scripts were run; refused otherwise."""
    try:
        found = plan()
    except LauncherError:
        return False
    text = run_scripts(found, folder)
    assert "--export=ALL\n#" not in text and "\n#SBATCH --export=ALL" not in text
    return True


def file(folder: Path, document: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_canary_would_sing(canary: Canary) -> None:
    proof(canary)


def test_the_recipe_as_it_stands_is_planned(tmp_path: Path) -> None:
    assert attempt(lambda: planned(file(tmp_path, RECIPE)), tmp_path)


@pytest.mark.parametrize("at", list(leaves(RECIPE)), ids=lambda at: ".".join(map(str, at)))
def test_a_value_of_a_recipe(at: Path_, canary: Canary, tmp_path: Path) -> None:
    for value in canary.shell:
        attempt(lambda v=value: planned(file(tmp_path, put(RECIPE, at, v))), tmp_path)
        assert not canary.sang


@pytest.mark.parametrize("at", list(keys(RECIPE)), ids=lambda at: ".".join(map(str, at)))
def test_a_key_of_a_recipe(at: Path_, canary: Canary, tmp_path: Path) -> None:
    for name in canary.shell:
        attempt(lambda n=name: planned(file(tmp_path, renamed(RECIPE, at, n))), tmp_path)
        assert not canary.sang


@pytest.mark.parametrize(
    "at", ["name", "model", "env.A_VARIABLE", "stages.sft.env.ANOTHER", "stages.sft.data.path"]
)
def test_an_override(at: str, canary: Canary, tmp_path: Path) -> None:
    recipe = file(tmp_path, RECIPE)
    for value in canary.shell:
        quoted = json.dumps(value)
        for override in (f"{at}={value}", f"{at}={quoted}", f"{value}=1", f"env.{value}=1"):
            attempt(lambda o=override: planned(recipe, overrides=(o,)), tmp_path)
            assert not canary.sang


WHOLE_PROFILE = {
    **yaml.safe_load(PROFILE),
    "account": "one",
    "qos": "one",
    "constraint": "one",
    "reservation": "one",
    "python": "/usr/bin/python3",
    "scratch": "/scratch",
    "secrets": "/home/ada/secrets",
    "ledger": "/shared/ledger",
    "env": {"A_VARIABLE": "text"},
}
WHOLE_PROFILE["partitions"] = [
    {**part, "account": "one", "qos": "one"} for part in WHOLE_PROFILE["partitions"]
]


@pytest.mark.parametrize("at", list(leaves(WHOLE_PROFILE)), ids=lambda at: ".".join(map(str, at)))
def test_a_value_of_a_profile(at: Path_, canary: Canary, tmp_path: Path) -> None:
    recipe = file(tmp_path, RECIPE)
    for value in canary.shell:
        profile = yaml.safe_dump(put(WHOLE_PROFILE, at, value))
        attempt(lambda p=profile: planned(recipe, p), tmp_path)
        assert not canary.sang


@pytest.mark.parametrize("at", [("env", "A_VARIABLE"), ("gpus", "a100_40gb")], ids=str)
def test_a_key_of_a_profile(at: Path_, canary: Canary, tmp_path: Path) -> None:
    recipe = file(tmp_path, RECIPE)
    for name in canary.shell:
        profile = yaml.safe_dump(renamed(WHOLE_PROFILE, at, name))
        attempt(lambda p=profile: planned(recipe, p), tmp_path)
        assert not canary.sang


def test_every_string_of_a_plan_that_is_handed_in(canary: Canary, tmp_path: Path) -> None:
    made = planned(file(tmp_path, RECIPE), yaml.safe_dump(WHOLE_PROFILE))
    document = json.loads(plan_to_json(made))
    asked = [*leaves({k: v for k, v in document.items() if k != "stages"})]
    for index, stage in enumerate(document["stages"]):
        parts = {key: stage[key] for key in ("stage", "allocation")}
        asked += [("stages", index, *at) for at in leaves(parts)]
    texts = [at for at in asked if isinstance(_at(document, at), str)]
    assert len(texts) > 40
    for at in texts:
        for value in canary.shell:
            text = json.dumps(put(document, at, value))
            attempt(lambda t=text: plan_from_json(t), tmp_path)
            assert not canary.sang, at


def _at(document: Any, at: Path_) -> Any:
    for step in at:
        document = document[step]
    return document
