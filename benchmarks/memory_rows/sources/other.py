"""Rows of any other source: columns taken at their word, transformers' and TRL's ways for the rest.

A row that states too little is not guessed at.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.case import Case
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import LIGER, Stack

_BUCKET = 500_000_000
"""DeepSpeed's own default, where a source shows no configuration."""


def read(row: Row) -> Case:
    shape, given = common.read(row)
    weights, autocast = notes.precision(row)
    released = notes.version(row, "transformers")
    doubts = [] if released else ["the version of transformers, which tells the loss"]
    if (foreign := notes.framework(row)) is not None:
        doubts.append(foreign)
    stack = Stack(
        weights=weights,
        compute=weights,
        autocast=autocast,
        optimizer=notes.optimizer(row),
        attention="eager" if row.flash == "False" else "flash",
        loss="liger" if notes.liger(row) else notes.loss(released or notes.of_its_time(row)),
        fused=LIGER if notes.liger(row) else frozenset(),
        sharding="fsdp" if notes.sharding(row).kind == "fsdp" else "zero",
        whole_buckets=True,
    )
    placed = replace(common.settings(row), reduce_bucket=_BUCKET, allgather_bucket=_BUCKET)
    native = "trl" in row.notes.lower() or "trl" in row.source.lower()
    return common.case(row, shape, given, stack, placed, native=native, doubts=tuple(doubts))
