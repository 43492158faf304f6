"""Our side of the benchmark against TRL's last PPO, and its figures; TRL's needs an environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ppo import ours, task
from benchmarks.ppo_vs_trl import RESULTS, SIDES, Trained, summary, table

SMALL: dict[str, Any] = {
    "batch": 8,
    "rollouts": 1,
    "ppo_epochs": 2,
    "length": 6,
    "learning_rate": 5e-3,
    "kl_coef": 0.01,
}


@pytest.mark.parametrize("value", ["model", "head"])
def test_our_side_trains_and_leaves_a_policy_that_is_scored(tmp_path: Path, value: str) -> None:
    task.write(tmp_path / "task", SMALL)

    ours.main(tmp_path / "task", tmp_path / "out", 1, value)

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["samples"] == 8 and result["seconds"] > 0 and result["processor_seconds"] > 0
    folder, reward = tmp_path / "out" / "policy", tmp_path / "task" / "reward"
    assert 0.0 < task.mean_score(folder, reward, 4, 6, seed=0) < 0.2


def test_samples_a_second_are_those_of_all_seeds_together() -> None:
    trained = [
        Trained("ours", 1, reward=0.2, samples=100, seconds=1.0, processor_seconds=1.0),
        Trained("ours", 2, reward=0.4, samples=100, seconds=3.0, processor_seconds=1.0),
        Trained("trl", 1, reward=0.9, samples=100, seconds=9.0, processor_seconds=9.0),
    ]

    side = summary("ours", trained)

    assert (side.reward_mean, side.samples_a_second) == pytest.approx((0.3, 50.0))
    assert side.samples_a_processor_second == pytest.approx(100.0)
    assert side.reward_sd == pytest.approx(0.1 * 2**0.5)


def test_the_page_has_the_table_of_the_newest_result() -> None:
    newest = json.loads(RESULTS.read_text().splitlines()[-1])

    assert [side["side"] for side in newest["sides"]] == list(SIDES)
    assert table(newest) in (Path(__file__).parents[2] / "docs" / "ppo.md").read_text()
