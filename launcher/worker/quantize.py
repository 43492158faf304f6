"""Bases that are stored in four or eight bits, under an adapter that trains (QLoRA)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from launcher.errors import UsageError
from launcher.recipe.types import Stage
from launcher.worker.context import Context


def check(stage: Stage) -> None:
    """Raises UsageError where the stage's base is to be quantized and nothing here can."""
    if not _quantized(stage):
        return
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            f"stages.{stage.name}.peft.quantization needs bitsandbytes, which this node has not",
            hint="install launcher[train] on the nodes, or leave peft.quantization out",
        )


def options(context: Context) -> dict[str, Any]:
    """The keywords of `from_pretrained` that store the base of the stage's adapter as it asks."""
    check(context.stage)
    if not _quantized(context.stage):
        return {}
    sharded = context.stage_plan.zero_stage == 3
    found = {"quantization_config": config(context.stage, sharded=sharded)}
    if not context.on_cpu and not sharded:
        found["device_map"] = {"": context.local_rank}
    return found


def config(stage: Stage, *, sharded: bool = False) -> Any:
    """The `transformers.BitsAndBytesConfig` of the stage's base.

    `sharded`: ZeRO-3 divides parameters of the computing type only, so that the packed numbers are
    kept as if they were of it.
    """
    import torch
    from transformers import BitsAndBytesConfig

    assert stage.peft is not None
    compute = getattr(torch, stage.dtype)
    if stage.peft.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=stage.peft.quantization == "nf4-double",
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if sharded else torch.uint8,
    )


def restore_masters(context: Context, model: Any) -> None:
    """Give the weights that train beside a quantized base back their float32.

    TRL's trainers turn them into bfloat16, where most steps of a small learning rate are lost to
    rounding. DeepSpeed makes its own float32 masters.
    """
    if not _quantized(context.stage) or context.stage_plan.deepspeed is not None:
        return
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _quantized(stage: Stage) -> bool:
    return stage.peft is not None and stage.peft.quantization is not None
