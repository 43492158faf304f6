"""Qwen's own scripts, and ms-swift's benchmark of the same models: transformers' Trainer with the
modelling code that Qwen's repository ships.

github.com/QwenLM/Qwen: `README.md` ("Profiling of Memory and Speed"), `finetune.py` (LoRA r 64 with
rows padded to the length, embeddings and head trained whole for base models), `finetune/*.sh`: full
training under ZeRO 3, LoRA on several GPUs and over GPTQ under ZeRO 2, else plain.
github.com/modelscope/ms-swift, `docs/source_en/LLM/Benchmark.md` and `scripts/benchmark` of that
time: LoRA on `c_attn`, 16 micro-batches to a step, `max_memory_reserved` in GiB.
PEFT before 0.6 (November 2023) keeps adapters in float32, then in the precision of their base.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.case import Case
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Attention, Stack

_REDUCE, _ALLGATHER = 200_000_000, 200_000_000
_LIVE = 1_000_000_000
_DECIMAL = 1e9 / 2**30
"""The README has 81.0 G on each of two cards of 80 GiB, so its G are decimal."""
_DEFAULT = ("q_proj", "k_proj", "v_proj")
"""What ms-swift adapts where nothing is said: `c_attn`, or its three parts."""
_VARIES = "how much of the allocator's pool rows of other lengths have fragmented"


def profiling(row: Row) -> Case:
    """A row of Qwen's README."""
    shape, given = common.read(row)
    weights, autocast = notes.precision(row)
    stack = Stack(weights=weights, compute=weights, autocast=autocast, adapters="float32")
    stack = replace(stack, optimizer="adamw_torch", loss="half", attention=_attention(row))
    stack = replace(stack, joint_qkv=True, whole_buckets=True)
    placed = common.settings(_told(row), accumulation=8)
    if given.full or placed.zero_stage == 3:
        placed = replace(
            placed,
            zero_stage=3,
            reduce_bucket=shape.hidden**2,
            prefetch_bucket=int(0.9 * shape.hidden**2),
            live_parameters=_LIVE,
        )
    elif placed.processes > 1 or given.base == "gptq4":
        placed = replace(placed, zero_stage=2, reduce_bucket=_REDUCE, allgather_bucket=_ALLGATHER)
    if placed.zero_stage:
        # Its DeepSpeed configurations name an optimizer, which is DeepSpeed's own fused one.
        stack = replace(stack, optimizer="adamw_torch_fused")
    if given.full or given.base != "dense":
        # DeepSpeed runs without autocast; but LoRA's figures on four GPUs grow by float32 logits.
        stack = replace(stack, autocast=autocast and not placed.zero_stage)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return common.case(
        row,
        shape,
        given,
        stack,
        placed,
        targets=targets,
        dropout=0.05,
        unit=_DECIMAL,
    )


def swift(row: Row) -> Case:
    """A row of ms-swift's benchmark."""
    shape, given = common.read(row)
    weights, autocast = notes.precision(row)
    stack = Stack(
        weights=weights,
        compute=weights,
        autocast=autocast,
        adapters=weights,
        optimizer="adamw_torch",
        loss="half",
        attention=_attention(row),
        joint_qkv=shape.family == "qwen",
    )
    if given.base in ("nf4", "int8"):
        # Its default quantizes the scales too; PEFT's preparation casts the rest to float32.
        stack = replace(stack, base="nf4-double", residual="float32")
    placed = common.settings(row, accumulation=16)
    return common.case(
        row, shape, given, stack, placed, targets=_DEFAULT, dropout=0.05, doubts=(_VARIES,)
    )


def _attention(row: Row) -> Attention:
    return "flash" if row.flash == "True" else "eager"


def _told(row: Row) -> Row:
    """The README tells by its scripts what the column leaves open."""
    return replace(row, sharding="none") if "unstated" in row.sharding else row
