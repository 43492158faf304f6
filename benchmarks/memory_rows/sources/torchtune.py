"""torchtune: its own models and recipes, bfloat16 throughout, adapters too.

github.com/pytorch/torchtune: the README's table of optimization flags (each row adds a technique to
those before it; peak of active memory in GiB), its tutorials and pull requests (rows of Alpaca that
are not packed: their longest is not published). `bf16` in torchtune means pure bfloat16.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.adapters import ATTENTION
from benchmarks.memory_rows.case import Case, Unknowable
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Stack

_OTHERS = {
    "offload": "activations are moved to the host",
    "8bit": "activations are moved to the host",
    "optimizer_in_bwd": "the optimizer steps during the backward pass",
}
"""Techniques of the README's table, the last first, that the launcher does not have."""
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw8bit": "adamw_8bit", "pagedadamw": "paged_adamw"}


def read(row: Row) -> Case:
    shape, given = common.read(row)
    technique = _technique(row)
    for name, what in _OTHERS.items():
        if name in technique:
            raise Unknowable(f"{what}, which the launcher does not do")
    weights, autocast = notes.precision(row)
    optimizer = row.optimizer.lower().split("+", 1)[0].replace(" ", "")
    sharded = notes.sharding(row).kind == "fsdp"
    stack = Stack(
        weights=weights,
        compute=weights,
        autocast=autocast,
        adapters=weights,
        optimizer=_OPTIMIZERS.get(optimizer, "adamw_torch"),
        loss="pieces" if "chunked" in technique or "ckpt" in technique else "stock",
        sharding="fsdp" if sharded else "zero",
    )
    placed = common.settings(row)
    compiled = technique and not ("full" in technique and "compile" not in technique)
    doubts = ("what torch.compile fuses is not told",) if compiled else ()
    stack = replace(stack, attention="sdpa" if row.flash == "sdpa" else "flash")
    return common.case(row, shape, given, stack, placed, targets=ATTENTION, doubts=doubts)


def _technique(row: Row) -> str:
    """What a row of the README's table adds to those before it; empty for other rows."""
    _, told, technique = row.notes.partition("cumulative technique:")
    return technique.strip().lower() if told else ""
