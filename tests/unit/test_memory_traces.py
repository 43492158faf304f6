"""The formula against the committed traces of real trainers (`make traces` makes them anew)."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher.memory.estimate import estimate
from launcher.memory.process import CUBLAS_WORKSPACE
from launcher.memory.stack import Stack, stack_of
from launcher.memory.types import Settings
from launcher.models.read import read_shape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

FILE = Path(__file__).parents[1] / "data" / "traces.json"
ROWS: list[dict[str, Any]] = json.loads(FILE.read_text())["rows"]


def estimated(row: dict[str, Any]) -> dict[str, int]:
    """Phase → bytes in tensors, as a trace counts them."""
    stage = msgspec.convert(row["stage"], Stage)
    settings = msgspec.convert(row["settings"], Settings)
    shapes = {role: read_shape(config, role) for role, config in row["configs"].items()}
    main = shapes[METHODS[stage.method].main_role]
    shapes |= {role: main for role in stage.models if role not in shapes}
    # Rows of a trace are equally long.
    stack = replace(stack_of(stage, settings), padded=False, **_stack(row["stack"] or {}))
    found = estimate(stage, shapes, settings, stack)
    return {phase.name: phase.allocated - CUBLAS_WORKSPACE for phase in found.phases}


def _stack(given: dict[str, Any]) -> dict[str, Any]:
    whole = msgspec.convert(given, Stack)
    return {name: getattr(whole, name) for name in given}


def error(row: dict[str, Any]) -> float:
    """Signed, of the peak over the training phases: rollouts are arithmetic on both sides."""
    own = estimated(row)
    traced = {name: size for name, size in row["phases"].items() if name != "rollout"}
    return float(max(own[name] for name in traced) / max(traced.values()) - 1)


def test_the_formula_gives_the_traced_peaks_to_one_per_cent() -> None:
    errors = {row["stage"]["name"]: error(row) for row in ROWS}
    worst = max(errors, key=lambda name: abs(errors[name]))
    assert statistics.median(map(abs, errors.values())) <= 0.01
    assert abs(errors[worst]) <= 0.04, (worst, errors[worst])


@pytest.mark.parametrize("method", sorted({row["stage"]["method"] for row in ROWS}))
def test_every_method_is_as_close(method: str) -> None:
    errors = [abs(error(row)) for row in ROWS if row["stage"]["method"] == method]
    assert statistics.median(errors) <= 0.01


def test_the_grid_covers_what_moves_memory() -> None:
    families = {row["configs"][role]["model_type"] for row in ROWS for role in row["configs"]}
    assert {"llama", "qwen2"} <= families
    assert {bool(row["stage"].get("peft")) for row in ROWS} == {True, False}
    assert {row["settings"]["gradient_checkpointing"] for row in ROWS} == {True, False}
    assert len({row["settings"]["micro_batch"] for row in ROWS}) >= 3
