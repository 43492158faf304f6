"""The DeepSpeed configuration of a stage: a shipped ZeRO base, and every value filled in."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from launcher.memory.types import Settings
from launcher.recipe.types import Stage
from launcher.shipped import shipped

Bases = Mapping[int, Mapping[str, Any]]
DEFAULT_MAX_GRAD_NORM = 1.0
"""`max_grad_norm` of transformers' TrainingArguments."""


@lru_cache(maxsize=1)
def shipped_bases() -> Bases:
    """ZeRO stage → the base configuration in `deepspeed_configs/`."""
    folder = shipped("deepspeed_configs")
    return {
        stage: json.loads((folder / f"zero{stage}.json").read_text(encoding="utf-8"))
        for stage in (1, 2, 3)
    }


def buckets(base: Mapping[str, Any]) -> dict[str, int]:
    """The bucket sizes of a base, by the names of `Settings` (elements)."""
    zero = base["zero_optimization"]
    named = {
        "reduce_bucket": "reduce_bucket_size",
        "allgather_bucket": "allgather_bucket_size",
        "prefetch_bucket": "stage3_prefetch_bucket_size",
        "live_parameters": "stage3_max_live_parameters",
    }
    return {ours: int(zero[theirs]) for ours, theirs in named.items() if theirs in zero}


def deepspeed_config(
    stage: Stage, settings: Settings, base: Mapping[str, Any], trained: int
) -> dict[str, Any]:
    """The complete configuration, without any `auto`, or {} for ZeRO 0.

    `trained` is the number of parameters that train: no bucket is larger, so that a small model
    does not pay for a large one's. Half-precision gradients accumulate in float32 from ZeRO 2 on,
    so that how a global batch is cut into micro-batches does not show in the result.
    """
    if settings.zero_stage == 0:
        return {}
    config: dict[str, Any] = copy.deepcopy(dict(base))
    zero = config["zero_optimization"]
    for key in ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size"):
        if key in zero:
            # NCCL wants buckets aligned to a few elements.
            zero[key] = min(int(zero[key]), max(1024, -(-trained // 1024) * 1024))
    if settings.offload != "none":
        pinned = settings.device == "cuda"
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
        if settings.offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    if settings.device == "cpu":
        zero["overlap_comm"] = False
        config["zero_force_ds_cpu_optimizer"] = False
    config["bf16"] = {"enabled": stage.dtype == "bfloat16"}
    config["fp16"] = {"enabled": stage.dtype == "float16"}
    if stage.dtype != "float32" and settings.zero_stage >= 2:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    clipping = stage.train.get("max_grad_norm")
    config["gradient_clipping"] = DEFAULT_MAX_GRAD_NORM if clipping is None else float(clipping)
    config["train_micro_batch_size_per_gpu"] = settings.micro_batch
    config["gradient_accumulation_steps"] = settings.accumulation
    config["train_batch_size"] = settings.micro_batch * settings.accumulation * settings.processes
    return config
