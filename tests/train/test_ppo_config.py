from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from launcher.worker.ppo.config import REFUSED, PPOConfig
from tests.train import ppo_task


@pytest.mark.parametrize(
    ("key", "given", "advice"),
    [
        ("beta", 0.1, "kl_coef"),
        ("epsilon", 0.1, "cliprange"),
        ("num_iterations", 2, "num_ppo_epochs"),
        ("num_generations", 8, "one completion a prompt"),
        ("steps_per_generation", 3, "num_mini_batches"),
        ("loss_type", "grpo", "one loss"),
    ],
)
def test_a_key_of_grpo_is_refused_with_what_to_use(
    tmp_path: Path, key: str, given: Any, advice: str
) -> None:
    with pytest.raises(ValueError, match=f"`{key}` is not a key of PPO.*{advice}"):
        ppo_task.config(tmp_path, **{key: given})


def test_all_wrong_keys_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`beta`.*; `epsilon`"):
        ppo_task.config(tmp_path, beta=0.1, epsilon=0.3)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("gamma", 1.1),
        ("num_ppo_epochs", 0),
        ("lam", -0.1),
        ("kl_target", 0.0),
        ("kl_estimator", "k4"),
        ("kl_controller", "pid"),
        ("reward_clip_range", [1.0, -1.0]),
    ],
)
def test_a_value_out_of_range_is_refused(tmp_path: Path, key: str, given: Any) -> None:
    with pytest.raises(ValueError, match=f"`{key}` is {re.escape(str(given))}, it must be"):
        ppo_task.config(tmp_path, **{key: given})


def test_an_adaptive_weight_that_starts_at_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`kl_coef` must start above 0"):
        ppo_task.config(tmp_path, kl_controller="adaptive", kl_coef=0.0)


def test_every_refused_key_is_one_that_grpo_has() -> None:
    assert set(REFUSED) <= {item.name for item in fields(PPOConfig)}


def test_a_rollout_is_the_mini_batches_times_the_batch(tmp_path: Path) -> None:
    config = ppo_task.config(
        tmp_path,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        num_mini_batches=4,
        num_ppo_epochs=5,
    )

    assert config.generation_batch_size == 3 * 2 * 4
    assert config.steps_per_generation == 2 * 4
    assert (config.num_generations, config.num_iterations) == (1, 5)


def test_a_config_can_be_made_again_from_its_own_values(tmp_path: Path) -> None:
    config = ppo_task.config(tmp_path, kl_coef=0.2, cliprange=0.3, num_mini_batches=2)
    again = PPOConfig(**{item.name: getattr(config, item.name) for item in fields(config)})

    assert again.kl_coef == again.beta == 0.2
    assert again.generation_batch_size == config.generation_batch_size
