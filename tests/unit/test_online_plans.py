"""Plans of stages that generate: judges on the GPU, whole groups, pairs, the user's files."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.memory.types import Settings
from launcher.plan.candidates import batches
from launcher.plan.roles import role_shapes
from launcher.plan.sizing import size
from launcher.plan.speed import speed_of
from launcher.plan.step_time import step_time
from launcher.plan.user_files import user_files
from launcher.plan.work import work_of
from launcher.recipe.load import load_recipe
from launcher.recipe.rewards import rewards_of
from launcher.recipe.types import Data, Peft, Reward, Stage
from launcher.run import folder
from tests.unit.planning import EIGHTY, MIXED, plan, recipe, settings, shapes

SEVEN, HALF = "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-0.5B"
LENGTH = Reward("short", "length", options={"max": 100})
SMALL, LARGE = Reward("small", model=HALF), Reward("large", model=SEVEN, weight=0.5)


def online(method: str, *rewards: Reward, **keywords: Any) -> Stage:
    data = Data("/data.jsonl", rows=20_000, max_prompt_tokens=512)
    given: dict[str, Any] = {"global_batch": 64, "rewards": rewards or (LENGTH,), "data": data}
    return Stage("it", method, {"policy": SEVEN}, **(given | keywords))


def peak(given: Stage, phase: str, **keywords: Any) -> dict[str, int]:
    found = role_shapes(recipe(given), given, shapes)
    estimate = size(given, found, settings(gradient_checkpointing=True, **keywords)).estimate
    return dict(next(each.items for each in estimate.phases if each.name == phase))


def seconds(given: Stage, **keywords: Any) -> float:
    work = work_of(given, role_shapes(recipe(given), given, shapes), 64)
    speed = speed_of(MIXED, EIGHTY.groups[0], 1, "bfloat16")
    return step_time(work, Settings(gradient_checkpointing=True, **keywords), speed).seconds


def test_each_reward_model_among_the_rewards_takes_its_room_and_its_time() -> None:
    none, one, two = (online("grpo", *each) for each in ((LENGTH,), (SMALL,), (SMALL, LARGE)))
    small, large = (shapes(name).trunk_parameters + shapes(name).hidden for name in (HALF, SEVEN))
    assert "reward model" not in peak(none, "backward")
    assert peak(one, "backward")["reward model"] == 2 * small
    assert peak(two, "backward")["reward model"] == 2 * (small + large)
    divided = peak(two, "backward", zero_stage=3, processes=8)["reward model"]
    assert divided == pytest.approx(2 * (small + large) / 8, rel=1e-6)
    times = [seconds(each, micro_batch=8, accumulation=8) for each in (none, one, two)]
    assert times == sorted(times) and times[2] > times[0]


def test_a_role_and_rewards_judge_together() -> None:
    given = online("grpo", SMALL)
    both = replace(given, models={**given.models, "reward_model": SEVEN})
    assert [(each.label, each.weight) for each in rewards_of(both)] == [
        ("small", 1.0),
        ("reward_model", 1.0),
    ]
    assert peak(both, "backward")["reward model"] > peak(given, "backward")["reward model"]


def test_online_dpo_holds_policy_and_reference_and_writes_pairs() -> None:
    full, adapter = online("online_dpo"), online("online_dpo", peft=Peft())
    assert peak(full, "loss")["reference"] == 2 * shapes(SEVEN).parameters
    assert "reference" not in peak(adapter, "loss")
    one, two = (peak(full, "rollout", micro_batch=n)["kv cache"] for n in (1, 2))
    assert two == 2 * one
    # The pairs of every forward pass are written before it, so that passes cost more.
    assert seconds(full, accumulation=64) > seconds(full, micro_batch=8, accumulation=8)


def test_a_reference_costs_time_with_an_adapter_too() -> None:
    with_kl, without = (online("grpo", peft=Peft(), train={"beta": b}) for b in (0.1, 0.0))
    batch = {"micro_batch": 8, "accumulation": 8}
    assert seconds(with_kl, **batch) > seconds(without, **batch)


@pytest.mark.parametrize(
    ("method", "train"),
    [
        ("grpo", {}),
        ("grpo", {"num_generations": 12}),
        ("grpo", {"generation_batch_size": 192, "num_generations": 16}),
        ("rloo", {"num_generations": 3, "generation_batch_size": 96}),
        ("rloo", {}),
    ],
)
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
def test_every_way_to_cut_a_step_gives_trl_whole_groups_in_whole_rollouts(
    method: str, train: dict[str, int], processes: int, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(
        f"""
launcher: 1
name: groups
model: {HALF}
stages:
  it:
    method: {method}
    data: {{path: owner/rows}}
    rewards: {{new: repetition}}
    global_batch: 48
    train: {train}
"""
    )
    (given,) = load_recipe(str(tmp_path / "r.yaml")).stages
    group = train.get("num_generations", {"grpo": 8, "rloo": 2}[method])
    found = batches(given, processes)
    assert found
    for micro, accumulation in found:
        # `GRPOConfig.__post_init__` raises for anything else.
        own = micro * processes
        rollout = train.get("generation_batch_size", own * accumulation)
        assert rollout % own == 0 and rollout % group == 0
        assert (rollout // own) % accumulation == 0  # whole optimizer steps


def test_the_run_keeps_a_copy_of_each_file_of_rewards(tmp_path: Path) -> None:
    mine = tmp_path / "rewards.py"
    mine.write_text("def right(completions, **_):\n    return [1.0] * len(completions)\n")
    function = Reward("right", f"{mine}:right")
    planned = plan(recipe(online("grpo", function, LENGTH, SMALL)))
    assert user_files(planned) == (str(mine),)
    run, _ = folder.create(tmp_path / "runs", planned, {}, new=False)
    mine.write_text("raise SystemExit\n")
    copy = run.user_file(str(mine))
    assert copy.read_text().startswith("def right")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
