"""The correction of an estimate by what runs of its kind measured, and its margin. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from launcher.memory.types import MemoryEstimate, Phase
from launcher.plan.evidence import Evidence, Kind, Observation, minor
from launcher.plan.formula import fingerprint
from launcher.plan.margin import Margin, learned

ITEM = "correction"
"""The item of a phase that holds what runs add to the formula, or take from it."""
PRIOR_RUNS = 1.0
"""As many runs as the formula itself counts for: n runs that agree take n ÷ (n + 1) of the way."""
REACH = 2.0
"""A run tells of estimates up to 2**REACH times smaller or larger than its own, the less the
further: what a process takes beside its tensors makes the errors of small models the larger."""
NEWEST = 128
"""Runs of a kind that count: enough for the margin, few enough to be read at every plan."""


@dataclass(frozen=True)
class Correction:
    """What an estimate is multiplied by."""

    factor: float = 1.0
    """What the formula's bytes are multiplied by."""
    runs: int = 0
    """Attempts that it is from."""


@dataclass(frozen=True)
class Calibration:
    """What past runs say of one stage's estimate, as it stands in its plan."""

    kind: str = ""
    formula: str = ""
    factor: float = 1.0
    runs: int = 0
    margin: str = ""
    """Why the margin is what it is."""
    tokens: int | None = None
    """Of the largest forward pass with gradients that was estimated; None where there is none."""


@dataclass(frozen=True)
class Learned:
    """What is known of one kind of stage."""

    kind: Kind
    formula: str
    """Empty where nothing is known of the kind: see `named`."""
    observations: tuple[Observation, ...] = ()

    def correction(self, predicted: int) -> Correction:
        """How to correct an estimate of so many bytes.

        exp(W ÷ (W + PRIOR_RUNS) × the weighted median of ln(measured ÷ predicted)), where a run
        weighs 1 − |log2 of the two estimates' ratio| ÷ REACH, and W is the sum of the weights.
        """
        return _correction(self._by_ratio, math.log2(max(1, predicted)))

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """The error of each run (see `launcher.plan.margin`), corrected by the others alone.

        Corrected by itself too, a run would find its estimate better than the next one will.
        """
        found = []
        for i, (size, ratio) in enumerate(self._by_ratio):
            others = self._by_ratio[:i] + self._by_ratio[i + 1 :]
            found.append(1 - _correction(others, size).factor / ratio)
        return tuple(found)

    @cached_property
    def margin(self) -> Margin:
        return learned(self.errors)

    @cached_property
    def _by_ratio(self) -> list[tuple[float, float]]:
        """(log2 of predicted bytes, ratio), by ratio."""
        pairs = ((math.log2(each.predicted), each.ratio) for each in self.observations)
        return sorted(pairs, key=lambda pair: pair[1])

    def corrected(self, found: MemoryEstimate) -> tuple[MemoryEstimate, Calibration]:
        """The estimate with its correction as an item of each phase, and where that is from."""
        correction = self.correction(subject(found.peak, self.kind))
        calibration = Calibration(
            kind=str(self.kind),
            formula=self.formula,
            factor=correction.factor,
            runs=correction.runs,
            margin=self.margin.reason,
        )
        if correction.runs == 0:
            return found, calibration
        phases = tuple(_with_item(phase, self.kind, correction.factor) for phase in found.phases)
        host = found.host_bytes
        if self.kind.device == "cpu":
            before = max(phase.total for phase in found.phases)
            host += max(phase.total for phase in phases) - before
        return replace(found, phases=phases, host_bytes=host), calibration


def learn(evidence: Evidence, kind: Kind, trl: str) -> Learned:
    """What `evidence` says of estimates of `kind` that the present formula makes."""
    if not any(each.kind == kind for each in evidence.observations):
        # The formula's fingerprint takes time, and would be compared with nothing.
        return Learned(kind, "")
    return _telling(evidence, kind, fingerprint(kind), trl)


def named(calibration: Calibration, kind: Kind) -> Calibration:
    """`calibration` with its formula, as a plan keeps it."""
    return replace(calibration, formula=calibration.formula or fingerprint(kind))


def _telling(evidence: Evidence, kind: Kind, formula: str, trl: str) -> Learned:
    found = evidence.of(kind, formula, trl)
    # What ran out of memory says only that the peak was higher: nothing where it was lower.
    telling = [each for each in found if not (each.at_least and each.ratio < 1)]
    return Learned(kind, formula, tuple(telling[:NEWEST]))


def subject(phase: Phase, kind: Kind) -> int:
    """The bytes of a phase that are measured: without the context on CUDA, which torch does not
    see, and without the correction that a plan may have added."""
    whole = phase.total if kind.device == "cpu" else phase.reserved
    return whole - phase.items.get(ITEM, 0)


def _with_item(phase: Phase, kind: Kind, factor: float) -> Phase:
    added = round((factor - 1) * subject(phase, kind))
    return Phase(phase.name, {**phase.items, ITEM: added}) if added else phase


def _correction(by_ratio: Sequence[tuple[float, float]], size: float) -> Correction:
    """`by_ratio` as `Learned` keeps it, `size` the log2 of the estimate's bytes."""
    near = [
        (ratio, 1 - abs(other - size) / REACH)
        for other, ratio in by_ratio
        if abs(other - size) < REACH
    ]
    if not near:
        return Correction()
    total = sum(weight for _, weight in near)
    middle = math.log(_median(near, total / 2))
    return Correction(math.exp(total / (total + PRIOR_RUNS) * middle), len(near))


def _median(ascending: Sequence[tuple[float, float]], half: float) -> float:
    """Of two in the middle the larger, which keeps more memory free."""
    below = 0.0
    for ratio, weight in ascending:
        below += weight
        if below > half:
            return ratio
    return ascending[-1][0]


@dataclass(frozen=True)
class Row:
    """One line of what is known: the runs of one kind under one formula and one TRL."""

    kind: str
    formula: str
    trl: str
    current: bool
    """Whether plans of this launcher use it."""
    runs: int
    others: int
    """Of other users, among the runs."""
    correction: float
    """Added to an estimate of the runs' middle size, as a share of it."""
    margin: float
    reason: str
    worst: float
    """The largest share of a measured peak that its estimate, corrected by the others, missed;
    negative where all were too high."""


def table(evidence: Evidence, trl: str) -> tuple[Row, ...]:
    """Everything that `evidence` holds, by kind, what is used now first."""
    rows = []
    groups = {(each.kind, each.formula, each.trl) for each in evidence.observations}
    for kind, formula, version in groups:
        found = _telling(evidence, kind, formula, version)
        if not found.observations:
            continue
        sizes = sorted(each.predicted for each in found.observations)
        rows.append(
            Row(
                kind=str(kind),
                formula=formula,
                trl=version,
                current=formula == fingerprint(kind) and version == minor(trl),
                runs=len(found.observations),
                others=sum(each.user is not None for each in found.observations),
                correction=found.correction(sizes[len(sizes) // 2]).factor - 1,
                margin=found.margin.value,
                reason=found.margin.reason,
                worst=max(found.errors),
            )
        )
    return tuple(sorted(rows, key=lambda row: (not row.current, row.kind, row.formula, row.trl)))
