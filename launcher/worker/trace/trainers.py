"""The method's own trainer for a stage, on models without weights and rows of the full length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.memory.lengths import lengths
from launcher.models.read import read_shape
from launcher.recipe.methods import METHODS
from launcher.worker import arguments, models
from launcher.worker.trace.models import Builder, tokenizer
from launcher.worker.trace.request import Request

_TOKEN = 2


def trainer_of(request: Request, folder: str) -> Any:
    """The trainer, its models on the `meta` device. Raises KeyError for a method without one."""
    return TRAINERS[request.stage.method](request, config_of(request, folder))


def config_of(request: Request, folder: str) -> Any:
    """The method's config as the worker makes it, for a process on its own."""
    stage, settings, stack = request.stage, request.settings, request.stack
    values = arguments.of_stage(
        stage,
        micro_batch=settings.micro_batch,
        accumulation=settings.accumulation,
        checkpointing=settings.gradient_checkpointing,
    )
    # A CPU has no float16 training; tensors of bfloat16 are as large.
    values |= {"output_dir": folder, "use_cpu": True, "fp16": False}
    values["bf16"] = stage.dtype != "float32" if stack is None else stack.autocast
    if stack is not None:
        values["optim"] = stack.optimizer
    return arguments.config_class(stage.method)(**values)


def length_of(request: Request) -> int:
    """Tokens of every row, prompt and completion together."""
    return _lengths(request).total


def _lengths(request: Request) -> Any:
    return lengths(
        request.stage, read_shape(request.config(METHODS[request.stage.method].main_role))
    )


def _sft(request: Request, config: Any) -> Any:
    from trl import SFTTrainer

    build = Builder(request)
    return SFTTrainer(
        model=build.causal("model", build.trained),
        args=config,
        train_dataset=_rows(request, input_ids=length_of(request)),
        processing_class=tokenizer(),
        peft_config=models.lora_config(request.stage.peft, "CAUSAL_LM"),
    )


def _reward(request: Request, config: Any) -> Any:
    from trl import RewardTrainer

    length = length_of(request)
    return RewardTrainer(
        model=Builder(request).new_reward_model("model"),
        args=config,
        train_dataset=_rows(request, chosen_ids=length, rejected_ids=length),
        processing_class=tokenizer(),
        peft_config=models.lora_config(request.stage.peft, "SEQ_CLS"),
    )


def _rows(request: Request, **columns: int) -> Any:
    """One micro-batch of rows: column → tokens."""
    from datasets import Dataset

    row = {name: [_TOKEN] * tokens for name, tokens in columns.items()}
    return Dataset.from_list([row] * request.settings.micro_batch)


TRAINERS: dict[str, Callable[[Request, Any], Any]] = {"sft": _sft, "reward": _reward}
"""Method → how its trainer is made."""
