"""The search finds what trying everything would find, and asks for few estimates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from launcher.cluster.profile import load_profile
from launcher.memory.estimate import estimate
from launcher.memory.types import MemoryEstimate, Settings
from launcher.models.find import shape_of
from launcher.models.types import ModelShape
from launcher.plan import search as search_module
from launcher.plan.choices import Choice
from launcher.plan.deepspeed import shipped_bases
from launcher.plan.layouts import Layout, layouts
from launcher.plan.make import make_plan
from launcher.plan.objective import Objective
from launcher.plan.search import Search
from launcher.recipe.load import load_recipe
from launcher.recipe.types import Data, Stage
from tests.unit.planning import MIXED, chain, cluster, partition, plan, shapes, stage

DATA = Data("/data.jsonl", rows=20_000, mean_tokens=400, max_prompt_tokens=512)


def searching(given: Stage, objective: Objective = "cost") -> Search:
    found = {role: shapes(name) for role, name in given.models.items()}
    return Search(given, found, MIXED, shipped_bases(), trl="1.16.0", objective=objective)


def everything(search: Search, every: list[Layout]) -> Iterator[tuple[float, ...]]:
    """The value of all settings that fit."""
    for layout in every:
        for keywords in search._variants(layout, offload=False):
            for micro, accumulation in search.batches(layout.processes):
                settings = Settings(**keywords, micro_batch=micro, accumulation=accumulation)
                if search.fits(layout, settings):
                    yield search._value(
                        layout, search._duration(layout, settings, preemptible=False)
                    )


@pytest.mark.parametrize("objective", ["cost", "time", "gpus"])
@pytest.mark.parametrize("method", ["sft", "reward", "ppo"])
def test_the_search_finds_what_trying_everything_finds(method: str, objective: Objective) -> None:
    search = searching(stage(method, model="Qwen/Qwen2.5-1.5B", data=DATA), objective)
    every = [
        each
        for each in layouts(MIXED, search.stage)
        if search.batches(each.processes) and not each.partition.preemptible
        and each.processes <= 16
    ]  # fmt: skip
    best = search.best(every)
    assert isinstance(best, Choice)
    assert best.value == min(everything(search, every))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many estimates were asked for, as the only element."""
    asked = [0]

    def counted(given: Stage, found: Mapping[str, ModelShape], at: Settings) -> MemoryEstimate:
        asked[0] += 1
        return estimate(given, found, at)

    monkeypatch.setattr(search_module, "estimate", counted)
    return asked


@pytest.mark.parametrize("profile", ["a100_40", "h100_80", "mixed"])
@pytest.mark.parametrize("name", ["ppo_7b", "ppo_72b", "sft_0.5b"])
def test_a_chain_is_planned_from_few_estimates(name: str, profile: str, count: list[int]) -> None:
    """What-ifs and reasons included; all settings on all layouts would be thousands."""
    recipe = load_recipe(name)
    planned = make_plan(recipe, load_profile(profile), shape_of, trl_version="1.16.0")
    assert count[0] <= 50 * len(planned.stages)


def test_eight_partitions_cost_no_more_estimates_than_two(count: list[int]) -> None:
    types = ["a100_40gb", "h100"]
    few = cluster(*(partition(f"p{i}", gpu, nodes=16) for i, gpu in enumerate(types)))
    many = cluster(*(partition(f"p{i}", gpu, nodes=16) for i, gpu in enumerate(types * 4)))
    asked = []
    for on in (few, many):
        count[0] = 0
        plan(chain("Qwen/Qwen2.5-72B"), on)
        asked.append(count[0])
    assert asked[1] <= asked[0]
