"""The trainer's arguments: the recipe's `train:` block, and the keys that the launcher owns."""

from __future__ import annotations

import importlib
from typing import Any

import yaml

from launcher.recipe.methods import METHODS
from launcher.records import files
from launcher.worker.context import Context


def keywords(context: Context) -> dict[str, Any]:
    """What the method's config class is called with."""
    plan, stage = context.stage_plan, context.stage
    values: dict[str, Any] = {
        "logging_steps": 1,
        "save_total_limit": 2,
        **stage.train,
        "output_dir": str(context.paths.checkpoints),
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "activation_checkpointing": plan.gradient_checkpointing,
        "bf16": stage.dtype == "bfloat16",
        "fp16": stage.dtype == "float16",
        "seed": stage.seed,
        "use_cpu": context.on_cpu,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if plan.gradient_checkpointing:
        values["activation_checkpointing_kwargs"] = {"use_reentrant": False}
    if METHODS[stage.method].online:
        # A recipe that pins it has had it pinned in the plan.
        values["ds3_gather_for_generation"] = plan.gather_for_generation
    # `models` has loaded with them; to the trainers, which are given models, they mean nothing.
    values.pop("model_init_kwargs", None)
    if plan.deepspeed is not None:
        values["deepspeed"] = str(context.paths.deepspeed)
    elif context.world > 1:
        values["ddp_backend"] = "gloo" if context.on_cpu else "nccl"
        values["ddp_find_unused_parameters"] = False
    return values


def config(context: Context) -> Any:
    """An instance of the method's config. The files that it is made from are left in the stage."""
    values = keywords(context)
    if context.is_main:
        # safe_dump, because JSON's 1e-06 reads back as a string in YAML 1.1.
        files.replace(context.paths.arguments, yaml.safe_dump(values, sort_keys=True).encode())
    if context.stage_plan.deepspeed is not None:
        _leave_deepspeed(context)
    module, name = METHODS[context.stage.method].config.split(":")
    return getattr(importlib.import_module(module), name)(**values)


def _leave_deepspeed(context: Context) -> None:
    from launcher.worker.distributed import wait_for_all

    if context.is_main:
        files.write_json(context.paths.deepspeed, context.stage_plan.deepspeed)
    wait_for_all()
