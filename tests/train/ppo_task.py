"""A task for PPO whose optimum is known, and the tiny models that play it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.ppo.task import MODEL, PROMPTS, WANTED, share_of_wanted_tokens, tokenizer
from launcher.worker.ppo.config import PPOConfig
from launcher.worker.ppo.trainer import PPOTrainer

__all__ = [
    "MODEL",
    "PROMPTS",
    "WANTED",
    "config",
    "logged",
    "share_of_wanted_tokens",
    "tokenizer",
    "trainer",
]


def config(folder: Path, **changes: Any) -> PPOConfig:
    """Settings that solve the task in seconds, in float32 so that numbers can be compared."""
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 16,
        "max_completion_length": 12,
        "kl_coef": 0.01,
        "learning_rate": 3e-3,
        "value_learning_rate": 1e-2,
        "max_steps": 8,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 7,
    }
    return PPOConfig(str(folder), **(settings | changes))


def trainer(folder: Path, *, options: dict[str, Any] | None = None, **changes: Any) -> PPOTrainer:
    """A trainer on the task; `options` go to the trainer, `changes` to its settings."""
    given = options or {}
    arguments: dict[str, Any] = {
        "model": str(MODEL),
        "args": given.get("args") or config(folder, **changes),
        "train_dataset": Dataset.from_dict({"prompt": PROMPTS}),
        "processing_class": tokenizer(),
    }
    if "reward_model" not in given:
        arguments["reward_model"] = share_of_wanted_tokens()
    return PPOTrainer(**(arguments | given))


def logged(trainer: PPOTrainer, key: str, after: int = 0) -> list[float]:
    """What was logged under `key` in the steps after `after`.

    The history of a resumed run starts with that of its checkpoint.
    """
    history = trainer.state.log_history
    return [entry[key] for entry in history if key in entry and entry["step"] > after]
