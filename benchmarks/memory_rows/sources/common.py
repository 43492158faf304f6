"""What all sources share: putting a case together from its parts."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.adapters import Adapter, adapter, peft
from benchmarks.memory_rows.case import Case, Metric, Unknowable
from benchmarks.memory_rows.models import shape_of_row
from benchmarks.memory_rows.row import Row
from launcher.memory.stack import Stack
from launcher.memory.types import Settings
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft, Stage


def read(row: Row) -> tuple[ModelShape, Adapter]:
    """Raises Unknowable where model or adapter are not ones that the launcher trains."""
    return shape_of_row(row), adapter(row.peft)


def stage(
    method: str, roles: tuple[str, ...], length: int, trained: Peft | None, stack: Stack
) -> Stage:
    """A stage that learns from rows of `length` tokens."""
    given, train = dict.fromkeys(roles, "measured"), {"max_length": length}
    return Stage("measured", method, given, dtype=stack.compute, peft=trained, train=train)


def settings(row: Row, *, accumulation: int = 1, checkpointing: bool | None = None) -> Settings:
    """Raises Unknowable where GPUs, batch, sharding or checkpointing are not told."""
    gpus, batch, _ = notes.needed(row)
    divided = notes.sharding(row)
    checkpoints = row.checkpointing if checkpointing is None else checkpointing
    if checkpoints is None:
        raise Unknowable("whether activations are checkpointed is not stated")
    return Settings(
        processes=gpus,
        processes_per_node=min(gpus, 8),
        zero_stage=divided.stage,
        offload=notes.offload(row),
        gradient_checkpointing=checkpoints,
        micro_batch=batch,
        accumulation=accumulation,
    )


def case(
    row: Row,
    shape: ModelShape,
    given: Adapter,
    stack: Stack,
    placed: Settings,
    *,
    targets: tuple[str, ...] | None = None,
    length: int | None = None,
    metric: Metric | None = None,
    dropout: float = 0.0,
    native: bool = False,
    unit: float = 1.0,
    doubts: tuple[str, ...] = (),
) -> Case:
    """`length` and `metric` where the row's own are not what ran; `targets` and `dropout` of an
    adapter, which the text leaves to the framework."""
    counted, open_question = notes.metric(row)
    if metric is not None:
        counted, open_question = metric, None
    if open_question is not None:
        doubts = (*doubts, open_question)
    method, roles = notes.method(row)
    trained = peft(given, shape, targets)
    if trained is not None:
        trained = replace(trained, dropout=dropout)
    return Case(
        stage=stage(method, roles, length or notes.needed(row)[2], trained, stack),
        shapes=dict.fromkeys(roles, shape),
        settings=placed,
        stack=replace(stack, base=given.base if stack.base == "dense" else stack.base),
        metric=counted,
        native=native,
        unit=unit,
        doubts=doubts,
    )
