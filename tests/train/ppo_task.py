"""A task for PPO whose optimum is known, and the tiny models that play it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification

from launcher.worker.ppo.config import PPOConfig
from launcher.worker.ppo.trainer import PPOTrainer

MODEL = Path(__file__).parents[2] / "recipes" / "tiny" / "model"
WANTED = list(range(20, 36))
PROMPTS = [f"{first}{second}" for first in "abcdefgh" for second in "123456"]


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL, padding_side="left")


def share_of_wanted_tokens() -> Qwen2ForSequenceClassification:
    """A reward model whose score is, within 1 %, the share of tokens among `WANTED`.

    One layer of attention with equal weights averages an indicator that the embedding holds in its
    first coordinate into the second; a large third coordinate keeps the norms from mattering.
    """
    config = Qwen2Config(
        vocab_size=AutoConfig.from_pretrained(MODEL).vocab_size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        num_labels=1,
        pad_token_id=tokenizer().pad_token_id,
    )
    model = Qwen2ForSequenceClassification(config).eval()
    anchor = 30.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        embedding = model.model.embed_tokens.weight
        embedding[WANTED, 0] = 1.0
        embedding[:, 2] = anchor
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, 0] = 1.0
        attention.o_proj.weight[1, 0] = 1.0
        rms = anchor / 8**0.5
        model.score.weight[0, 1] = rms * rms
    return model


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
