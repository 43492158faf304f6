"""What the shipped recipes are planned to on the shipped clusters, in a few lines each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from launcher.cluster.profile import load_profile
from launcher.errors import LauncherError
from launcher.memory.types import GIB
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.plan.types import StagePlan
from launcher.recipe.load import load_recipe

RECIPES = ("sft_0.5b", "sft_7b", "ppo_0.5b", "ppo_7b", "ppo_32b", "ppo_72b")
PROFILES = ("a100_40", "h100_80", "mixed", "v100_32")
PAIRS = [(name, profile) for name in RECIPES for profile in PROFILES] + [("tiny/ppo", "dev")]


@pytest.mark.parametrize(("name", "profile"), PAIRS)
def test_a_shipped_recipe_is_planned_as_before(
    name: str, profile: str, golden: Callable[[str, str], None]
) -> None:
    golden(f"plans/{name.replace('/', '_')}-{profile}.txt", planned(name, profile))


def planned(name: str, profile: str) -> str:
    """The plan in lines, or the error."""
    try:
        plan = make_plan(load_recipe(name), load_profile(profile), shape_of, trl_version="1.16.0")
    except LauncherError as error:
        return f"{type(error).__name__}: {error.message}\n  {error.hint or ''}\n"
    return "".join(lines(each) for each in plan.stages)


def lines(each: StagePlan) -> str:
    allocation, peak = each.allocation, each.estimate.peak
    where = f"{allocation.nodes} × {allocation.tasks_per_node} {allocation.gpu}"
    words = [f"ZeRO {each.zero_stage}", f"offload {each.offload}"]
    words += ["checkpointing"] if each.gradient_checkpointing else []
    words += [] if each.gather_for_generation else ["generation in parts"]
    text = f"{each.name}: {where} in {allocation.partition}, {', '.join(words)}\n"
    text += f"  batch {each.micro_batch} × {each.accumulation} × {allocation.processes}\n"
    text += f"  {peak.total / GIB:.1f} of {allocation.gpu_memory_gib} GiB in {peak.name}:"
    items = sorted(peak.items.items(), key=lambda pair: -pair[1])
    text += ",".join(f" {item} {size / GIB:.1f}" for item, size in items) + "\n"
    text += f"  host {allocation.host_memory_gib:.0f} GiB, {allocation.cpus_per_task} CPUs a task,"
    text += f" {allocation.time_minutes} minutes\n"
    return text + "".join(f"  not {line.what}: {line.why}\n" for line in each.rejected)
