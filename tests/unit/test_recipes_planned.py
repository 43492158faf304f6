"""Every recipe that ships, planned on every cluster that ships."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from launcher.cluster.profile import list_profiles, load_profile
from launcher.errors import DoesNotFit, UsageError
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.plan.types import StagePlan
from launcher.recipe.load import load_recipe
from launcher.recipe.sources import built_in_names, part_names
from launcher.recipe.types import Recipe, Stage, stage_of

NAMES = tuple(name for name in built_in_names() if not name.startswith("demo/"))
FAMILIES = tuple(
    name for name in part_names() if name.startswith(("size/llama3-", "size/smollm2-"))
)
CHAINS = ("ppo", "rloo", "online_dpo", "dpo", "kto", "grpo")
"""Methods whose parts have every kind of stage between them."""
TOO_LARGE = {
    "v100_32": {"sft_72b", "reward_72b", "dpo_72b", "kto_72b", "grpo_72b"}
    | {"ppo_72b", "rloo_72b", "online_dpo_72b"},
    # One process there is what a card holds, the host's copies of a finished model too.
    "dev": {n for n in NAMES if "72b" in n or ("32b" in n and not n.endswith("32b_lora"))},
}
"""Full training of the largest models, where nodes are few or their memory is small."""


@cache
def recipes(dtype: str) -> dict[str, Recipe]:
    return {name: load_recipe(name, [f"dtype={dtype}"]) for name in NAMES}


class Planner:
    """Plans recipes on one cluster; a stage that was planned before is not planned again."""

    def __init__(self, profile: str) -> None:
        self._cluster = load_profile(profile)
        self._seen: set[str] = set()

    def plan(self, recipe: Recipe) -> list[StagePlan]:
        """The plans of the stages that were not planned before. Raises what `make_plan` does."""
        roots: dict[str, str] = {}
        stages, told = [], set()
        for stage in recipe.stages:
            resolved = self._resolved(stage, roots)
            roots[stage.name] = next(iter(resolved.models.values()))
            words = repr(replace(resolved, name="", needs=()))
            known = words in self._seen
            stages.append(replace(stage, use=roots[stage.name], needs=()) if known else stage)
            told.add(words)
        plan = make_plan(
            replace(recipe, stages=tuple(stages)), self._cluster, shape_of, trl_version="1.16.0"
        )
        self._seen |= told
        return [each for each in plan.stages if each.stage.use is None]

    @staticmethod
    def _resolved(stage: Stage, roots: dict[str, str]) -> Stage:
        """The stage with the model that each reference goes back to, so equal stages are equal."""

        def root(reference: str) -> str:
            return roots.get(stage_of(reference) or "", reference)

        return replace(
            stage,
            models={role: root(reference) for role, reference in stage.models.items()},
            candidates={root(model): "" for model in stage.candidates.values()},
            baseline=None,
        )


def test_the_profiles_are_those_that_the_refusals_are_known_for() -> None:
    assert set(list_profiles()) == {"a100_40", "dev", "h100_80", "mixed", "v100_32"}


@pytest.mark.parametrize("profile", ["a100_40", "dev", "h100_80", "mixed", "v100_32"])
def test_every_recipe_is_planned_or_told_that_it_is_too_large(profile: str) -> None:
    planner, refused = Planner(profile), set()
    # A V100 does not compute in bfloat16.
    for name, recipe in recipes("float16" if profile == "v100_32" else "bfloat16").items():
        try:
            planned = planner.plan(recipe)
        except DoesNotFit as error:
            assert "GiB" in error.message and "the closest" in error.message
            refused.add(name)
        else:
            for each in planned:
                assert each.estimate.peak.total > 0
                memory = each.allocation.gpu_memory_gib
                assert memory is not None and each.estimate.peak.total < memory * 2**30
                batch = each.micro_batch * each.accumulation * each.allocation.processes
                assert each.stage.global_batch in (None, batch)
    assert refused == TOO_LARGE.get(profile, set())


def test_on_a_v100_every_recipe_is_told_that_it_does_not_compute_in_bfloat16() -> None:
    cluster = load_profile("v100_32")
    for name, recipe in recipes("bfloat16").items():
        if not name.startswith("tiny/"):
            with pytest.raises(UsageError, match="v100_32gb does not compute in bfloat16"):
                make_plan(recipe, cluster, shape_of, trl_version="1.16.0")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_one_word_in_a_recipe_of_any_method(family: str, tmp_path: Path) -> None:
    planner, models = Planner("h100_80"), set()
    for method in CHAINS:
        file = tmp_path / f"{method}.yaml"
        file.write_text(f"launcher: 1\nname: mine\nextends: [method/{method}, {family}]\n")
        recipe = load_recipe(str(file))
        planner.plan(recipe)
        models |= {
            model
            for stage in recipe.stages
            for model in stage.models.values()
            if not stage_of(model)
        }
    (model,) = models
    size = family.rpartition("-")[2]
    assert model.endswith("-Instruct") and f"-{size.upper()}-" in model
    assert ("Llama-3" in model) == ("llama3" in family)
