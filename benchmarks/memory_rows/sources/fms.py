"""fms-acceleration's benchmarks: TRL's SFTTrainer through fms-hf-tuning.

github.com/foundation-model-stack/fms-acceleration, scripts/benchmarks: `defaults.yaml` (reentrant
checkpointing, no accumulation, FlashAttention 2), `scenarios*.yaml` (LoRA r 16 with dropout 0.1,
no autocast unless `bf16`/`fp16` is set), `accelerate.yaml` (FSDP 1, full shard), `refs/*.csv` (what
was measured; `framework_config` names the plugins), `refs/requirements*.txt` (versions).
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.case import Case
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Stack

_EARLIER = "4.40"
"""transformers of spring 2024, when the project's first figures were published."""


def read(row: Row) -> Case:
    shape, given = common.read(row)
    placed = common.settings(row)
    weights, autocast = notes.precision(row)
    framework = row.note("framework") or _quantized_default(row)
    plugins = frozenset(framework.split("-"))
    sharded = notes.sharding(row).kind == "fsdp"
    version = notes.version(row, "transformers")
    doubts: tuple[str, ...] = ()
    if version is None:
        version, doubts = _EARLIER, ("the versions, which tell the loss, are not stated",)
    stack = Stack(
        weights=weights,
        compute=weights,
        # Accelerate keeps what FSDP trains in float32 under mixed precision.
        autocast=autocast,
        adapters=weights if notes.older(version, 4, 43) else "float32",
        optimizer="adamw_torch",
        loss=notes.loss(version),
        sharding="fsdp" if sharded else "zero",
        reentrant=True,
        expert_layers=True,
        repeated_heads=notes.repeats_heads(shape.family, version),
    )
    if shape.family == "gpt_bigcode":
        # It has a loss of its own, and fills its cache in training too.
        stack = replace(stack, loss="half", keeps_cache=True)
        # Of the benchmark's names of layers only its joint projection has one.
        given = given if given.full else replace(given, targets=("qkv_proj",))
    if sharded and autocast and given.full:
        stack = replace(stack, weights="float32")
    if given.base == "nf4":
        # The plugin, and the baseline, quantize the scales too.
        stack = replace(stack, base="nf4-double")
    if "baseline" in plugins and not sharded:
        # PEFT's own preparation casts what is not quantized to float32.
        stack = replace(stack, residual="float32")
    if shape.norm == "layer" and autocast and given.base != "dense":
        # Autocast's LayerNorm gives float32, and a quantized layer what it was given.
        stack = replace(stack, residual="float32")
    fused = _kernels(plugins, quantized=given.base != "dense", family=shape.family)
    stack = replace(stack, fused=fused)
    if "liger" in plugins:
        stack = replace(stack, loss="liger", fused=fused - {"cross_entropy"})
    native = not fused and "autogptq" not in plugins
    return common.case(row, shape, given, stack, placed, dropout=0.1, native=native, doubts=doubts)


def _quantized_default(row: Row) -> str:
    """Rows of a pull request name no framework: its plugins are what quantized rows ran with."""
    return "accelerated-peft-bnb" if "qlora" in row.peft else "none"


def _kernels(plugins: frozenset[str], *, quantized: bool, family: str) -> frozenset[str]:
    """Those of the `foak` plugin: its rules for a family, LoRA's only over a quantized base."""
    if "foak" not in plugins:
        return frozenset()
    if family == "gpt_bigcode":
        return frozenset({"cross_entropy"})
    kernels = {"rms_norm", "rope", "cross_entropy"}
    return frozenset(kernels | {"lora"} if quantized else kernels)
