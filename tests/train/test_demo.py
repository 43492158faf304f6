"""The main job, whole: PPO beats SFT on held-out letters, and has not run off to do so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.shipped import shipped

LARGEST_KL = 8.0
"""Nats a completion from the SFT model, on average."""
LARGEST_REPETITION = 0.05
"""Share of 3-grams that stand earlier in the same completion."""


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_ppo_beats_sft_by_reward_model_and_by_the_rule_that_training_never_sees(
    tmp_path: Path,
) -> None:
    python = sys.executable
    subprocess.run([python, "-m", "launcher.worker.smollm2"], check=True)
    recipe = shipped("recipes") / "demo" / "ppo_135m.yaml"
    command = [str(Path(python).parent / "launcher"), "submit", str(recipe)]
    options = ["--cluster", "local", "--runs", str(tmp_path), "--yes", "--wait"]
    subprocess.run(command + options, check=True)

    (found,) = tmp_path.glob("*/stages/eval/evaluation.json")
    result: dict[str, Any] = json.loads(found.read_text())
    candidates = {candidate["label"]: candidate for candidate in result["candidates"]}
    ppo = candidates["ppo"]
    assert list(candidates) == ["base", "sft", "ppo"] and result["baseline"] == "sft"
    for measure in ("reward", "rule"):
        against = ppo["against_baseline"][measure]
        assert against["difference"]["low"] > 0, measure
        assert against["win_rate"]["low"] > 0.5, measure
    assert ppo["kl_sequence"]["mean"] < LARGEST_KL
    assert ppo["repetition"] < LARGEST_REPETITION
    assert ppo["eos_rate"] > 0.95
