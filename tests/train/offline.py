"""Stages that learn from data sets, on the tiny model: planned, in a run folder, trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from launcher.cluster.profile import load_profile
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.recipe.load import load_recipe
from launcher.recipe.types import Stage
from launcher.run import folder
from tests.train.online import ROOT, Trained, train
from tests.train.tiny_models import BASE

RECIPES = {"sft": "tiny/sft", "rm": "tiny/ppo", "dpo": "tiny/dpo", "kto": "tiny/kto"}
"""Stage → the recipe that ships with it; each stage is called by what it is."""
HELD_OUT = str(ROOT / "recipes" / "tiny" / "data" / "preference_held_out.jsonl")


def stage_of_recipe(recipe: str, stage: str) -> Stage:
    return load_recipe(recipe).stage(stage)


def prepare(
    root: Path,
    stage: str,
    *overrides: str,
    recipe: str | None = None,
    wide: tuple[str, ...] = (),
) -> Trained:
    """The run of a tiny recipe's stage, on the base model, made as `launcher submit` makes it.

    Overrides are those of the stage (`train.beta=0.2`), `wide` those of the recipe.
    """
    words = [f"stages.{stage}.{word}" for word in overrides]
    if stage == "rm":
        words = [
            "stages.ppo=null",
            "stages.eval=null",
            "stages.sft=null",
            f"stages.rm.model={BASE}",
            *words,
        ]
    loaded = load_recipe(recipe or RECIPES[stage], [*words, *wide])
    plan = make_plan(loaded, load_profile("dev"), shape_of, trl_version="1.16.0")
    run, _ = folder.create(root / "runs", plan, loaded.resolved, new=True)
    paths = run.stage(stage)
    for needed in (paths.attempts, paths.checkpoints):
        needed.mkdir(parents=True)
    return Trained(run, stage)


def trained(root: Path, stage: str, *overrides: str, recipe: str | None = None) -> Trained:
    made = prepare(root, stage, *overrides, recipe=recipe)
    assert train(made)
    return made


def logits(model: Any, tokens: int = 24) -> torch.Tensor:
    """What a model says of a fixed text of tokens, without dropout."""
    text = torch.arange(5, 5 + tokens)[None]
    with torch.no_grad():
        said: torch.Tensor = model.eval()(input_ids=text, use_cache=False).logits
    return said
