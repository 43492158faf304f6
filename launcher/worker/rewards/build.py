"""The judges of a stage, in the recipe's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launcher.recipe.library import LIBRARY, is_dotted, named, options_of
from launcher.recipe.rewards import rewards_of
from launcher.recipe.types import Reward
from launcher.worker import models
from launcher.worker.context import Context
from launcher.worker.rewards.judge import Judge, LibraryJudge, UserJudge
from launcher.worker.rewards.of_trl import TrlFunction, need_math
from launcher.worker.rewards.user import ImportedFunction, UserFunction


def judges(context: Context) -> list[Judge]:
    """The judges, as TRL's `reward_funcs`. Under ZeRO-3 the trainer's config must be made before.

    Functions come before models are loaded, so that what they lack is told soon. Raises
    UsageError for what is no reward model, and for a function that cannot be used.
    """
    stated = rewards_of(context.stage)
    functions = {each.label: _judge(context, each) for each in stated if each.model is None}
    return [functions.get(each.label) or _judge(context, each) for each in stated]


def _judge(context: Context, reward: Reward) -> Judge:
    if reward.model is not None:
        return _of_model(context, reward.label, context.folder_of(reward.model))
    assert reward.function is not None  # one of the two is given
    return function_judge(reward.label, reward.function, reward.options, context.run.user_file)


def function_judge(
    label: str, function: str, options: Mapping[str, Any], copy_of: Callable[[str], Path]
) -> Judge:
    """The judge that a recipe's `function` stands for; `copy_of` gives the run's copy of a file.

    Raises UsageError for what cannot be used, or lacks a package.
    """
    if function in LIBRARY:
        given = options_of(function, options)
        if given.get("correct") == "latex":
            need_math(function)
        return LibraryJudge(label, function, given)
    if function in named():
        return UserJudge(label, TrlFunction(function, options_of(function, options)))
    if is_dotted(function):
        return UserJudge(label, ImportedFunction(function))
    path, _, name = function.rpartition(":")
    return UserJudge(label, UserFunction(path, name, copy_of(path)))


def _of_model(context: Context, label: str, folder: str) -> Judge:
    from transformers import AutoTokenizer

    from launcher.worker.rewards.model import ModelJudge

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, **context.loads)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = models.trained_reward_model(context, folder, tokenizer.pad_token_id)
    return ModelJudge(label, model, tokenizer, context.stage_plan.micro_batch)
