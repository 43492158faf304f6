"""The finished model of a stage: whole weights in safetensors, as the next stage loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.recipe.methods import METHODS
from launcher.worker.context import Context
from launcher.worker.distributed import wait_for_all


def save(context: Context, trainer: Any) -> None:
    """Write `model/` (and `adapter/`, where one was trained). A collective under ZeRO-3."""
    if context.stage.peft is None:
        trainer.save_model(str(context.paths.model))
    else:
        trainer.save_model(str(context.paths.adapter))
        if context.is_main:
            _merge(context, trainer.processing_class)
    if context.is_main:
        for folder in (context.paths.model, context.paths.adapter):
            # A pickle of this process's arguments, of no use to the next stage.
            (folder / "training_args.bin").unlink(missing_ok=True)
    wait_for_all()


def roots(context: Context) -> list[Path]:
    """The folders that make the stage's result."""
    return [folder for folder in (context.paths.model, context.paths.adapter) if folder.is_dir()]


def _merge(context: Context, tokenizer: Any) -> None:
    """The adapter folded into its base on the CPU, which works for every way of sharding."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    method = METHODS[context.stage.method]
    folder = context.model(method.main_role)
    dtype = getattr(torch, context.stage.dtype)
    if method.result == "reward_model":
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
        base.config.pad_token_id = tokenizer.pad_token_id
    else:
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    merged = PeftModel.from_pretrained(base, str(context.paths.adapter)).merge_and_unload()
    merged.save_pretrained(str(context.paths.model))
    tokenizer.save_pretrained(str(context.paths.model))
