"""torchtune: its own models and recipes, bfloat16 throughout, adapters too.

github.com/pytorch/torchtune: the README's table of optimization flags (each row adds a technique to
those before it; peak of active memory in GiB), its tutorials and pull requests (rows of Alpaca that
are not packed: their longest is not published). `bf16` in torchtune means pure bfloat16.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.adapters import ATTENTION
from benchmarks.memory_rows.case import Case
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Stack

_ORDER = ("packed", "compile", "chunked", "ckpt", "optimizer_in_bwd", "offload", "8bit")
"""Techniques of the README's table, in the order in which they are added."""
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw8bit": "adamw_8bit", "pagedadamw": "paged_adamw"}


def read(row: Row) -> Case:
    shape, given = common.read(row)
    weights, autocast = notes.precision(row)
    optimizer = row.optimizer.lower().split("+", 1)[0].replace(" ", "")
    sharded = notes.sharding(row).kind == "fsdp"
    stack = Stack(
        weights=weights,
        compute=weights,
        autocast=autocast,
        adapters=weights,
        optimizer=_OPTIMIZERS.get(optimizer, "adamw_torch"),
        loss="stock",
        sharding="fsdp" if sharded else "zero",
    )
    placed = common.settings(row)
    doubts = ("what torch.compile fuses is not told",) if _compiled(row) else ()
    stack = replace(stack, attention="sdpa" if row.flash == "sdpa" else "flash")
    return common.case(row, shape, given, stack, placed, targets=ATTENTION, doubts=doubts)


def _compiled(row: Row) -> bool:
    """Whether the row comes at or after `compile` in the README's table."""
    technique = row.notes.rsplit("cumulative technique:", 1)[-1].lower()
    if "cumulative technique" not in row.notes:
        return False
    return not technique.strip().startswith("full") or "compile" in technique
