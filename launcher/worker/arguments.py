"""The trainer's arguments: the recipe's `train:` block, and the keys that the launcher owns."""

from __future__ import annotations

import importlib
from math import lcm
from typing import Any

import yaml

from launcher.plan.duration import KEPT
from launcher.recipe.fields import fields
from launcher.recipe.methods import METHODS
from launcher.recipe.rewards import rewards_of
from launcher.recipe.types import Stage
from launcher.records import files
from launcher.worker.context import Context
from launcher.worker.vllm import client


def of_stage(
    stage: Stage, *, micro_batch: int, accumulation: int, checkpointing: bool
) -> dict[str, Any]:
    """What the config class is called with wherever the stage runs: the recipe's word, and the
    plan's on how a step is cut."""
    values: dict[str, Any] = {
        "logging_steps": 1,
        "save_total_limit": KEPT,
        **stage.train,
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "activation_checkpointing": checkpointing,
        "bf16": stage.dtype == "bfloat16",
        "fp16": stage.dtype == "float16",
        "seed": stage.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if checkpointing:
        values["activation_checkpointing_kwargs"] = {"use_reentrant": False}
    # `models` has loaded with them; to the trainers, which are given models, they mean nothing.
    values.pop("model_init_kwargs", None)
    return values


def keywords(context: Context) -> dict[str, Any]:
    """What the method's config class is called with on this rank."""
    plan, stage = context.stage_plan, context.stage
    values = of_stage(
        stage,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        checkpointing=plan.gradient_checkpointing,
    )
    values["output_dir"] = str(context.paths.checkpoints)
    values.update(context.loads)
    if plan.save_steps is not None and "save_steps" not in stage.train:
        values["save_steps"] = plan.save_steps
    values["use_cpu"] = context.on_cpu
    if METHODS[stage.method].online:
        # A recipe that pins it has had it pinned in the plan.
        values["ds3_gather_for_generation"] = plan.gather_for_generation
        values.update(client.arguments(stage))
    if METHODS[stage.method].judged:
        values["reward_weights"] = [reward.weight for reward in rewards_of(stage)]
        group = _evaluated_group(stage)
        # TRL evaluates whole groups; no more at once than a rollout of the training has.
        one = plan.micro_batch * context.world
        values["per_device_eval_batch_size"] = lcm(one, group) // context.world
    if plan.deepspeed is not None:
        values["deepspeed"] = str(context.paths.deepspeed)
    elif context.world > 1:
        values["ddp_backend"] = "gloo" if context.on_cpu else "nccl"
        values["ddp_find_unused_parameters"] = False
    return values


def _evaluated_group(stage: Stage) -> int:
    """Completions of one prompt in an evaluation."""
    default = fields(stage.method).schemas.get("num_generations", {"default": 1})["default"]
    stated = stage.train.get("num_generations_eval") or stage.train.get("num_generations")
    return int(stated or default)


def config(context: Context) -> Any:
    """An instance of the method's config. The files that it is made from are left in the stage."""
    values = keywords(context)
    if context.is_main:
        # safe_dump, because JSON's 1e-06 reads back as a string in YAML 1.1.
        files.replace(context.paths.arguments, yaml.safe_dump(values, sort_keys=True).encode())
    if context.stage_plan.deepspeed is not None:
        _leave_deepspeed(context)
    return config_class(context.stage.method)(**values)


def config_class(method: str) -> Any:
    """The class that the method's `train:` block is the keywords of."""
    config = METHODS[method].config
    assert config is not None  # no stage without one has a trainer
    module, name = config.split(":")
    return getattr(importlib.import_module(module), name)


def _leave_deepspeed(context: Context) -> None:
    from launcher.worker.distributed import wait_for_all

    if context.is_main:
        files.write_json(context.paths.deepspeed, context.stage_plan.deepspeed)
    wait_for_all()
