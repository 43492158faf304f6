"""Values that the tests of models, memory and plan share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.memory.types import Settings
from launcher.models.find import shape_of
from launcher.models.types import ModelShape
from launcher.plan.make import make_plan
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import Data, Recipe, Resources, Stage

GPUS = {
    "a100_40gb": Gpu(39.5, price=1.0),
    "h100": Gpu(79.6, price=2.2),
    "v100": Gpu(31.7, bf16=False, price=0.5),
    "mystery": Gpu(None),
}
TINY = ModelShape("tiny", 2, 64, 128, 4, 2, 16, 384, 256, tied_embeddings=True, qkv_bias=True)


def partition(name: str, gpu: str | None, nodes: int = 4, **keywords: Any) -> Partition:
    group = NodeGroup(nodes=nodes, cpus=64, memory_gib=1000.0, gpu=gpu, gpus=8 if gpu else 0)
    keywords = {"max_time_minutes": 1440, **keywords}
    return Partition(name, (group,), **keywords)


def cluster(*partitions: Partition, **keywords: Any) -> Cluster:
    keywords = {"gpus": GPUS, "interconnect": "infiniband", **keywords}
    return Cluster("lab", partitions, **keywords)


FORTY = partition("forty", "a100_40gb")
EIGHTY = partition("eighty", "h100")
# Named so that no sorting by name would prefer the other.
SPARE = partition("any-spare", "a100_40gb", preemptible=True)
MIXED = cluster(FORTY, EIGHTY, SPARE)
LAPTOP = cluster(
    Partition("local", (NodeGroup(nodes=1, cpus=2, memory_gib=7.5),)),
    gpus={},
    engine="local",
    device="cpu",
    interconnect="none",
)
POOR = cluster(
    Partition("poor", (NodeGroup(4, 64, 120.0, gpu="h100", gpus=8),), max_time_minutes=1440),
    gpus=GPUS,
)
"""Nodes with little host memory: a ladder there has rungs with more GPUs."""
STAND_INS = cluster(FORTY, EIGHTY, device="cpu")


def stage(method: str = "sft", model: str = "Qwen/Qwen2.5-7B", **keywords: Any) -> Stage:
    """One stage that stands alone, on whole models."""
    models = {
        "sft": {"model": model},
        "reward": {"model": model},
        "ppo": {"policy": model, "reward_model": model, "reference": model},
        "evaluate": {"reward_model": model, "reference": model},
    }[method]
    if method == "evaluate":
        keywords.setdefault("candidates", {"one": model})
    else:
        keywords.setdefault("global_batch", 64)
    keywords.setdefault("data", Data("/data.jsonl", rows=20_000, max_prompt_tokens=512))
    return Stage(keywords.pop("name", method), method, models, **keywords)


def chain(model: str, **keywords: Any) -> Recipe:
    """sft → reward → ppo → evaluate."""
    one = stage("sft", model, **keywords)
    rm = replace(
        stage("reward", model, **keywords), name="rm", models={"model": "stage:sft"}, needs=("sft",)
    )
    ppo = replace(
        stage("ppo", model, **keywords),
        models={"policy": "stage:sft", "reward_model": "stage:rm", "reference": "stage:sft"},
        needs=("sft", "rm"),
    )
    keywords.pop("peft", None)
    judge = replace(
        stage("evaluate", model, **keywords),
        name="eval",
        global_batch=None,
        models={"reward_model": "stage:rm", "reference": "stage:sft"},
        candidates={"base": model, "sft": "stage:sft", "ppo": "stage:ppo"},
        needs=("sft", "rm", "ppo"),
    )
    return recipe(one, rm, ppo, judge)


def recipe(*stages: Stage) -> Recipe:
    return Recipe("chain", stages, {"stages": [each.name for each in stages]})


def shapes(reference: str) -> ModelShape:
    return TINY if reference == "tiny" else shape_of(reference)


def plan(given: Recipe, on: Cluster = MIXED) -> Plan:
    return make_plan(given, on, shapes, trl_version="1.16.0")


def plan_one(given: Stage, on: Cluster = MIXED) -> StagePlan:
    return plan(recipe(given), on).stages[0]


def pinned(**keywords: Any) -> Resources:
    return Resources(**keywords)


def settings(**keywords: Any) -> Settings:
    return Settings(**keywords)
