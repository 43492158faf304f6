"""The judges of a stage, in the recipe's order."""

from __future__ import annotations

from typing import Any

from launcher.recipe.rewards import LIBRARY, options_of, rewards_of
from launcher.recipe.types import Reward
from launcher.worker import models
from launcher.worker.context import Context
from launcher.worker.rewards.judge import Judge, LibraryJudge, UserJudge
from launcher.worker.rewards.user import UserFunction


def judges(context: Context) -> list[Judge]:
    """The judges, as TRL's `reward_funcs`. Under ZeRO-3 the trainer's config must be made before.

    Raises UsageError for what is no reward model, and for a file that cannot be used.
    """
    return [_judge(context, reward) for reward in rewards_of(context.stage)]


def _judge(context: Context, reward: Reward) -> Judge:
    if reward.model is not None:
        return _of_model(context, reward.label, context.folder_of(reward.model))
    assert reward.function is not None  # one of the two is given
    if reward.function in LIBRARY:
        options = options_of(reward.function, reward.options)
        return LibraryJudge(reward.label, reward.function, options)
    path, _, name = reward.function.rpartition(":")
    return UserJudge(reward.label, UserFunction(path, name, context.run.user_file(path)))


def _of_model(context: Context, label: str, folder: str) -> Judge:
    from transformers import AutoTokenizer

    from launcher.worker.rewards.model import ModelJudge

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = models.trained_reward_model(context, folder, tokenizer.pad_token_id)
    return ModelJudge(label, model, tokenizer, context.stage_plan.micro_batch)
