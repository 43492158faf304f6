"""GRPO, RLOO and online DPO on the tiny model: judged, resumed, divided, and better for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from launcher.errors import LauncherError
from launcher.worker.ppo.reward import score
from tests.train import online
from tests.train.tiny_models import BASE

# Two optimizer steps on each rollout of 16 completions, twice over: stops fall within rollouts.
GROUPED: dict[str, Any] = {
    "learning_rate": 1e-2,
    "num_generations": 4,
    "max_completion_length": 6,
    "generation_batch_size": 16,
    "num_iterations": 2,
    "max_steps": 6,
}
PAIRS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "max_new_tokens": 6,
    "max_length": 64,
    "max_steps": 6,
}
SETTINGS = {"grpo": GROUPED, "rloo": GROUPED, "online_dpo": PAIRS}
ADAPTER = {"r": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("method", "stop", "stage"),
    [
        ("grpo", 3, {}),  # amid the second pass over the rollout's first half
        ("rloo", 5, {}),
        ("online_dpo", 3, {}),
        pytest.param("grpo", 4, {}, marks=pytest.mark.long),  # between two rollouts
        pytest.param("grpo", 1, {"peft": ADAPTER}, marks=pytest.mark.long),
        pytest.param("rloo", 3, {"peft": ADAPTER}, marks=pytest.mark.long),
        pytest.param("online_dpo", 5, {"peft": ADAPTER}, marks=pytest.mark.long),
    ],
)
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, method: str, stop: int, stage: dict[str, Any]
) -> None:
    settings = SETTINGS[method]
    # Few prompts, so that the stop and what follows lie in different epochs.
    rows = [{"prompt": f"{n}"} for n in range(12 if method == "online_dpo" else 4)]
    stage = {"global_batch": 8, "rows": rows, "resources": {"micro_batch": 4}, **stage}
    whole = online.trained(tmp_path / "whole", method, settings, **stage)
    parts = online.resumed(tmp_path / "parts", method, settings, stop, **stage)

    assert len(whole.metrics) == 6
    assert whole.logged("grad_norm")[-1] > 0
    assert parts.weights == whole.weights
    assert parts.logged("loss") == whole.logged("loss")
