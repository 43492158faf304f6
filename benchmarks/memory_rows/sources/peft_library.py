"""PEFT's own figures: its comparison of methods on MetaMathQA, and the recipes of its docs.

github.com/huggingface/peft, `method_comparison/MetaMathQA` (`run.py`: bfloat16 without autocast,
adapters in float32, transformers' own loss, `max_memory_reserved` after each step, the pool emptied
every ten; `data.py`: texts of at most 1300 characters, so the length is only bounded) and
`docs/source/accelerate/{fsdp,deepspeed}.md` (TRL's SFTTrainer, nvidia-smi).
"""

from __future__ import annotations

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.case import Case, Unknowable
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Stack
from launcher.recipe.types import Dtype


def comparison(row: Row) -> Case:
    """A row of the comparison of methods."""
    shape, given = common.read(row)
    if row.optimizer.lower() not in ("adamw", "adamw_torch"):
        raise Unknowable(f"optimizer {row.optimizer!r} is one that the launcher does not run")
    weights, _ = notes.precision(row)
    stack = Stack(
        weights=weights,
        compute=weights,
        adapters="float32",
        optimizer="adamw_torch",
        loss=notes.loss(notes.version(row, "transformers")),
        attention="sdpa",
    )
    doubts = ("the length of the longest row is only bounded",)
    return common.case(row, shape, given, stack, common.settings(row), native=True, doubts=doubts)


def docs(row: Row) -> Case:
    """A row of the guides to FSDP and DeepSpeed: `examples/sft` of spring 2024.

    Its base is loaded in float32 where it is not quantized, which FSDP keeps in its shards, and
    DeepSpeed narrows. Adapters take the base's precision.
    """
    shape, given = common.read(row)
    weights, _ = notes.precision(row)
    quantized = given.base != "dense"
    fsdp = notes.sharding(row).kind == "fsdp"
    stored: Dtype = "float32" if fsdp and not quantized else weights
    stack = Stack(
        weights=stored,
        compute=weights,
        autocast=fsdp,
        adapters="float32" if fsdp else weights,
        optimizer="adamw_torch",
        loss="rebound",
        sharding="fsdp" if fsdp else "zero",
        reentrant=quantized,
        expert_layers=True,
    )
    doubts: tuple[str, ...] = ()
    if "midpoint" in row.notes:
        doubts = ("a range was published, of which this is the middle",)
    placed = common.settings(row, accumulation=2 if quantized else 4)
    return common.case(row, shape, given, stack, placed, dropout=0.1, native=True, doubts=doubts)
