"""Signs of trouble in a training that generates, and none where there is no trouble."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.cli import state_text
from launcher.records import metrics, pairs
from launcher.records.metrics import Row
from launcher.records.pairs import Pairs
from launcher.records.paths import RunPaths
from launcher.report.signs import Sign, of_run, signs
from launcher.run.state import RunState, StageState
from tests.unit.running import ON_SLURM

HEALTHY: dict[str, float] = {
    "reward": 0.5,
    "reward_std": 0.3,
    "frac_reward_zero_std": 0.2,
    "entropy": 1.2,
    "completions/mean_length": 80.0,
    "completions/clipped_ratio": 0.1,
    "kl": 0.01,
}


def course(late: Mapping[str, float] | None = None, steps: int = 30) -> list[Row]:
    """Rows whose figures go over from the healthy ones to `late` after a third of the way."""
    rows = []
    for step in range(1, steps + 1):
        row = HEALTHY | (dict(late or {}) if step > steps // 3 else {})
        rows.append({"step": step, **row})
    return rows


def without(rows: list[Row], *keys: str) -> list[Row]:
    return [{k: v for k, v in row.items() if k not in keys} for row in rows]


def kinds(rows: list[Row]) -> list[str]:
    return [sign.kind for sign in signs(rows)]


def test_a_healthy_training_has_no_signs() -> None:
    assert (
        kinds(course({"reward": 0.9, "entropy": 0.7, "completions/mean_length": 120, "kl": 0.1}))
        == []
    )


@pytest.mark.parametrize(
    ("late", "kind", "words"),
    [
        ({"frac_reward_zero_std": 0.9}, "flat rewards", "in 90% of the groups every completion"),
        ({"entropy": 0.2}, "mode collapse", "fell from 1.2 to 0.2 nats a token"),
        ({"completions/clipped_ratio": 0.6}, "clipped", "60% of the completions are cut off"),
        ({"completions/mean_length": 400}, "length", "completions grew from 80 to 400 tokens"),
        ({"completions/mean_length": 10}, "length", "completions shrank from 80 to 10 tokens"),
        ({"kl": 2.0}, "kl", "2 nats a token from its reference"),
    ],
)
def test_each_sign_is_seen_and_told_with_its_figures(
    late: dict[str, float], kind: str, words: str
) -> None:
    (sign,) = signs(course(late))
    assert sign.kind == kind
    assert words in sign.text


def test_completions_that_no_judge_says_anything_of_are_a_sign() -> None:
    silent = without(course(), "reward", "reward_std")
    assert kinds(silent) == ["unjudged"]
    assert kinds([*silent[:25], *course()[25:]]) == []
    assert kinds(silent[:9]) == []
    assert kinds(without(silent, "frac_reward_zero_std")) == []


def test_a_reward_that_rises_beside_a_sign_may_be_hacked() -> None:
    (sign,) = signs(course({"kl": 2.0, "reward": 3.0}))
    assert sign.text.endswith("reward rose from 0.5 to 3: read some answers, it may be hacked")
    assert "hacked" not in signs(course({"kl": 2.0, "reward": 0.1}))[0].text


def test_ppo_has_no_groups_and_its_rewards_deviation_is_held_against_its_start() -> None:
    ppo = without(course({"reward_std": 0.01}), "frac_reward_zero_std")
    assert kinds(ppo) == ["flat rewards"]
    assert kinds(without(course({"reward_std": 0.1}), "frac_reward_zero_std")) == []


def test_online_dpo_is_read_by_the_names_that_trl_gives_it() -> None:
    rows = without(course(), "entropy", "kl")
    for row in rows:
        late = row["step"] > 10
        row |= {"objective/entropy": 8.0 if late else 96.0, "objective/kl": 80.0 if late else 0.1}
    assert kinds(rows) == ["mode collapse", "kl"]


def test_nothing_is_said_before_there_is_enough_to_compare() -> None:
    assert kinds(course({"kl": 2.0}, 9)) == []
    assert kinds(course({"entropy": 0.1}, 15)) == []


def test_figures_of_a_rollout_are_logged_at_some_steps_only() -> None:
    rows = course({"frac_reward_zero_std": 1.0}, 80)
    for row in rows:
        if row["step"] % 4:
            del row["frac_reward_zero_std"]
    assert kinds(rows) == ["flat rewards"]


def test_a_stage_that_rewards_nothing_has_no_signs() -> None:
    rows = without(course({"entropy": 0.1}), "reward", "reward_std", "frac_reward_zero_std")
    assert kinds(rows) == []


def test_steps_that_were_done_again_count_once_and_broken_lines_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "reward": 1.0}, {"step": 2, "reward": 2.0}, {"step": 2, "reward": 3.0}]
    text = "\n".join(map(json.dumps, lines))
    path.write_text(
        f'{text}\n{{"step": 2, "eval_reward": NaN, "name": "x"}}\n[1]\n{{"step": 3, "rew'
    )
    one, two = metrics.read(path)
    assert one == {"step": 1, "reward": 1.0}
    assert (two["reward"], "name" in two) == (3.0, False)
    assert metrics.read(tmp_path / "none") == []


def test_of_a_long_file_the_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {n}, "x": "{"." * 900}"}}\n' for n in range(2000)))
    steps = [row["step"] for row in metrics.read(path)]
    assert steps[:20] == list(range(20)) and steps[-20:] == list(range(1980, 2000))
    assert len(steps) < 500


def test_status_shows_them_under_the_stages() -> None:
    state = RunState("run", (StageState("align", "grpo", "running"),))
    text = state_text.render(state, {"align": (Sign("kl", "it is far"),)})
    assert text.endswith("! align: it is far")


def test_what_is_odd_about_a_stages_pairs_is_a_sign_of_it(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    run.stage("rm").root.mkdir(parents=True)
    pairs.write(run.stage("rm"), Pairs(8, 8, 0, 0, 0, 0, 3.0, 3.0, warnings=("all are the same",)))
    assert of_run(run, ON_SLURM) == {"rm": (Sign("pairs", "all are the same"),)}


def test_status_tells_a_finished_stage_by_its_result() -> None:
    metrics = {"loss": 0.2, "train_loss": 0.5, "eval_accuracy": 0.8125, "eval_margin": 1.25}
    state = RunState("run", (StageState("rm", "reward", "complete", metrics=metrics),))
    assert state_text.render(state).endswith("eval_accuracy 0.8125, eval_margin 1.25")
