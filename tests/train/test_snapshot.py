"""The keys that a login node checks are those of the installed TRL and of our own configs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from launcher.recipe.choices import CHOICES, DPO_LOSSES
from launcher.recipe.fields import fields
from launcher.recipe.gates import LOGGED
from launcher.recipe.methods import METHODS
from launcher.worker import snapshot

SOURCES = {
    "sft": "trainer/sft_*.py",
    "reward": "trainer/reward_*.py",
    "dpo": "trainer/dpo_*.py",
    "kto": "trainer/kto_*.py",
    "grpo": "trainer/grpo_*.py",
    "online_dpo": "experimental/online_dpo/online_dpo_*.py",
}


def test_the_committed_snapshot_is_that_of_the_installed_training_stack() -> None:
    current = snapshot.TARGET.read_text(encoding="utf-8")
    assert current == snapshot.text(), "write it anew: python -m launcher.worker.snapshot"


@pytest.mark.parametrize(
    ("method", "key"), [(method, key) for method, keys in CHOICES.items() for key in keys]
)
def test_the_values_of_a_key_are_those_that_trl_compares_it_with(method: str, key: str) -> None:
    found = set(compared(method, key))
    if key == "packing_strategy":
        found |= set(compared("sft", "strategy", "data_utils.py"))
        found.discard("bfd-requeue")  # which has another name in recipes
    assert set(CHOICES[method][key]) == found
    assert fields(method).schemas[key]["default"] in CHOICES[method][key]


def test_the_losses_of_dpo_are_those_that_trl_compares_with() -> None:
    assert set(DPO_LOSSES) == set(compared("dpo", "loss_type"))


@pytest.mark.parametrize("method", LOGGED)
def test_the_figures_of_a_gate_are_those_that_trl_logs(method: str) -> None:
    logged: set[str] = set()
    for path in _sources(SOURCES[method]):
        logged |= set(re.findall(r"_metrics\[mode\]\[\"([^\"]+)\"\]", path.read_text("utf-8")))
    assert set(LOGGED[method]) == logged
    assert set(METHODS[method].gates) <= logged


def compared(method: str, name: str, sources: str = "") -> Iterator[str]:
    """The texts that TRL's trainer and config of a method compare a variable or attribute with."""
    for path in _sources(sources or SOURCES[method]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and name == _last(node.left):
                for each in ast.walk(node.comparators[0]):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        yield each.value


def _sources(pattern: str) -> list[Path]:
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None
    found = list(Path(spec.origin).parent.glob(pattern))
    assert found
    return found


def _last(node: ast.expr) -> str:
    named = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return str(named)
