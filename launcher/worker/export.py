"""The finished model of a stage: whole weights in safetensors, as the next stage loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.recipe.methods import METHODS
from launcher.worker import quantize
from launcher.worker.context import Context
from launcher.worker.distributed import wait_for_all
from launcher.worker.models import SAFE


def save(context: Context, trainer: Any) -> None:
    """Write `model/` (and `adapter/`, where one was trained). A collective under ZeRO-3."""
    if context.stage.peft is None:
        trainer.save_model(str(context.paths.model))
    else:
        trainer.save_model(str(context.paths.adapter))
        if context.is_main:
            _merge(context, trainer)
    if context.is_main:
        for folder in (context.paths.model, context.paths.adapter):
            # A pickle of this process's arguments, of no use to the next stage.
            (folder / "training_args.bin").unlink(missing_ok=True)
    wait_for_all()


def roots(context: Context) -> list[Path]:
    """The folders that make the stage's result."""
    return [folder for folder in (context.paths.model, context.paths.adapter) if folder.is_dir()]


def _merge(context: Context, trainer: Any) -> None:
    """The adapter folded into its base on the CPU, which works for every way of sharding."""
    from peft import PeftModel

    tokenizer = trainer.processing_class
    trained = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
    base = _base(context)
    if trained.vocab_size != base.config.get_text_config().vocab_size:
        # A chat template of another model brought its tokens along.
        base.resize_token_embeddings(trained.vocab_size)
    merged = PeftModel.from_pretrained(base, str(context.paths.adapter)).merge_and_unload()
    for config in (merged.config, getattr(merged, "generation_config", None)):
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id
    merged.save_pretrained(str(context.paths.model))
    tokenizer.save_pretrained(str(context.paths.model))


def _base(context: Context) -> Any:
    """What the adapter was trained on, in the stage's dtype.

    Of a quantized base that is what its packed weights stand for: an adapter also learns to mend
    what the packing lost, so that on the original weights it would be another model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.integrations import unset_hf_deepspeed_config

    method = METHODS[context.stage.method]
    folder, dtype = context.model(method.main_role), getattr(torch, context.stage.dtype)
    peft = context.stage.peft
    packed: dict[str, Any] = {}
    if peft is not None and peft.quantization is not None:
        packed = {"quantization_config": quantize.config(context.stage), "device_map": "cpu"}
    if method.result == "reward_model":
        load, labels = AutoModelForSequenceClassification, {"num_labels": 1}
    else:
        load, labels = AutoModelForCausalLM, {}
    unset_hf_deepspeed_config()
    base = load.from_pretrained(folder, dtype=dtype, **(SAFE | context.loads), **labels, **packed)
    return base.dequantize() if packed else base
