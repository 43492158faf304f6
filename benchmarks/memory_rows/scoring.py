"""Rows → points and verdicts: the launcher's estimate beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.memory_rows.case import Case, Metric, Unknowable
from benchmarks.memory_rows.reading import case_of
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.score import Point, Verdict
from launcher.cluster.gpu_types import gpu_of
from launcher.memory.estimate import estimate
from launcher.memory.pool import EXPANDABLE
from launcher.memory.types import GIB, MemoryEstimate, Phase
from launcher.plan.margin import learned

KINDS = (
    "TRL/HF-native single-GPU",
    "single-GPU, settings known",
    "single-GPU, something left open",
    "multi-GPU",
)
"""Groups by how much of a row's settings is told; the first is a part of the second."""


@dataclass(frozen=True)
class Scored:
    row: Row
    case: Case
    phase: Phase
    """Where the row's metric is highest."""
    point: Point | None
    """None: it ran out of memory."""
    verdict: Verdict | None
    """None: the GPU's memory is not told."""

    @property
    def single(self) -> bool:
        return self.case.settings.processes == 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """The groups of the report that it counts in, beside its source."""
        native, known, open_question, several = KINDS
        if not self.single:
            return (several,)
        if self.case.doubts:
            return (open_question,)
        return (native, known) if self.case.native else (known,)


@dataclass(frozen=True)
class Listed:
    """A row that is not scored."""

    row: Row
    reason: str


def scored(row: Row) -> Scored | Listed:
    """Every row is one or the other."""
    try:
        case = case_of(row)
    except Unknowable as error:
        return Listed(row, str(error))
    if row.peak_gib is None and not row.out_of_memory:
        return Listed(row, "neither a peak nor an out-of-memory is stated")
    found = estimate(case.stage, case.shapes, case.settings, case.stack)
    phase = max(found.phases, key=lambda each: counted(each, case.metric))
    margin = learned(()).value
    point = None
    if row.peak_gib is not None:
        point = Point(row.peak_gib * case.unit, counted(phase, case.metric) / GIB, margin)
    return Scored(row, case, phase, point, _verdict(row, found, margin))


def counted(phase: Phase, metric: Metric) -> int:
    """Bytes of what the row's metric counts."""
    return {"allocated": phase.allocated, "reserved": phase.reserved, "total": phase.total}[metric]


def _verdict(row: Row, found: MemoryEstimate, margin: float) -> Verdict | None:
    """A plan takes a GPU where the whole process fits with the margin. What the allocator holds in
    segments that nothing fits is not needed: it gives them back before it fails."""
    memory = gpu_of(row.gpu).memory_gib
    if memory is None:
        return None
    needs = max(
        phase.allocated * (1 + EXPANDABLE) + phase.items.get("context", 0) for phase in found.phases
    )
    return Verdict(row.out_of_memory, needs > memory * (1 - margin) * GIB)


def groups(found: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Kinds in a fixed order, then sources by name, then `overall`."""
    rows = list(found)
    made = {kind: [row for row in rows if kind in row.kinds] for kind in KINDS}
    for source in sorted({row.row.source for row in rows}):
        made[source] = [row for row in rows if row.row.source == source]
    return {**made, "overall": rows}
