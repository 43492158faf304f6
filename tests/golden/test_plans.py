"""What the shipped recipes are planned to on the shipped clusters, in a few lines each."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from launcher.cli.plan_text import climb
from launcher.cluster.profile import load_profile
from launcher.errors import LauncherError
from launcher.memory.types import GIB
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.plan.types import StagePlan
from launcher.recipe.load import load_recipe

SIZES = ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
RECIPES = ("sft_0.5b", "sft_7b", "sft_72b", *(f"ppo_{size}" for size in SIZES))
PROFILES = ("a100_40", "h100_80", "mixed", "v100_32")
FURTHER = ("dpo_7b", "kto_7b_lora", "grpo_7b", "rloo_7b_lora", "ppo_7b_lora", "sft_72b_qlora")
"""A recipe of each further method and adapter."""
PAIRS = [
    *((name, profile) for name in RECIPES for profile in PROFILES),
    *((name, profile) for name in FURTHER for profile in ("a100_40", "mixed")),
    ("guide/rlhf", "mixed"),
    ("tiny/ppo", "dev"),
]
REFUSED = ("sft_0.5b", "v100_32")
"""As it stands: a V100 does not compute in bfloat16, so the others are planned in float16 there."""


@pytest.mark.parametrize(("name", "profile"), PAIRS)
def test_a_shipped_recipe_is_planned_as_before(
    name: str, profile: str, golden: Callable[[str, str], None]
) -> None:
    golden(f"plans/{name.replace('/', '_')}-{profile}.txt", planned(name, profile))


def planned(name: str, profile: str) -> str:
    """The plan in lines, or the error."""
    half = profile == "v100_32" and (name, profile) != REFUSED
    recipe = load_recipe(name, ["dtype=float16"] if half else [])
    try:
        plan = make_plan(recipe, load_profile(profile), shape_of, trl_version="1.16.0")
    except LauncherError as error:
        return f"{type(error).__name__}: {error.message}\n  {error.hint or ''}\n"
    return "".join(lines(each) for each in plan.stages)


def lines(each: StagePlan) -> str:
    """Decisions, and figures as roughly as they are known: a finer estimate changes few lines."""
    allocation, peak, found = each.allocation, each.estimate.peak, each.prediction
    where = f"{allocation.nodes} × {allocation.tasks_per_node} {allocation.gpu}"
    words = [f"ZeRO {each.zero_stage}", f"offload {each.offload}"]
    words += ["checkpointing"] if each.gradient_checkpointing else []
    words += [] if each.gather_for_generation else ["generation in parts"]
    text = f"{each.name}: {where} in {allocation.partition}, {', '.join(words)}\n"
    text += f"  batch {each.micro_batch} × {each.accumulation} × {allocation.processes}\n"
    text += f"  {peak.total / GIB:.0f} of {allocation.gpu_memory_gib} GiB in {peak.name}\n"
    assert found is not None and found.seconds is not None
    text += (
        f"  time limit {clock(allocation.time_minutes)} for about {rough(found.seconds / 3600)} h"
    )
    text += f", a checkpoint every {each.save_steps} steps" if each.save_steps else ""
    text += f", {allocation.cpus_per_task} CPUs a task\n"
    text += f"  out of memory: {climb(each)}\n"
    text += "".join(f"  not {line.what.split(':')[0]}\n" for line in each.rejected)
    return text + "".join(f"  but {re.split(' .[0-9]+ GiB', line)[0]}\n" for line in each.advice)


def clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def rough(value: float) -> str:
    """One figure."""
    return f"{float(f'{value:.1g}'):g}"
