"""What a trainer measured of itself: memory and time by phase. Largest over its ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from launcher.records import files

STEP = "whole step"
"""The time of whole optimizer steps, beside the phases that they are made of."""


@dataclass(frozen=True)
class PhaseMeasurement:
    """One phase over all times that it was run."""

    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    """`device allocated`, `device reserved` (GPU) and `host` (resident set), in bytes."""
    count: int = 0
    """How often it was run."""
    median_s: float = 0.0
    """Seconds of one time."""
    longest_s: float = 0.0


@dataclass(frozen=True)
class Measurement:
    phases: Mapping[str, PhaseMeasurement] = field(default_factory=dict)
    """`load`, `data`; of a step `rollout` and `score` (online), `update` (forward and backward) and
    `optimizer step`; `evaluate`, `save`; of an evaluation `generate`, `score`, `reward`, `compare`;
    and `STEP`."""
    tokens: int | None = None
    """Of the largest forward pass that had gradients; None where none had."""
    last_phase: str = ""
    """The phase it was in when this was written."""
    out_of_memory: bool = False
    """Whether it ended because the device's memory ran out."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """The largest over the phases."""
        return _largest(phase.peak_bytes for phase in self.phases.values())

    @property
    def steps(self) -> int:
        """Optimizer steps that were finished."""
        return self.phases[STEP].count if STEP in self.phases else 0


def path(attempts: Path, round_key: str, rank: int) -> Path:
    """Where the trainer process of `rank` leaves its own, in the folder of the receipts.
    `round_key`: of `launcher.records.rounds.key`."""
    return attempts / f"{round_key}.rank{rank}.measured.json"


def read(attempts: Path, round_key: str) -> Measurement | None:
    """The largest over the ranks of a round that left theirs; None where none did."""
    found = []
    for each in sorted(attempts.glob(f"{round_key}.rank*.measured.json")):
        try:
            found.append(files.read_json(each, Measurement))
        except msgspec.DecodeError:
            # Half a file, of a rank that was killed: it says nothing.
            continue
    return largest([each for each in found if each is not None])


def largest(ranks: list[Measurement]) -> Measurement | None:
    """One measurement of all ranks: the largest of every figure. Pure."""
    if not ranks:
        return None
    names = dict.fromkeys(name for rank in ranks for name in rank.phases)
    # The rank that failed says where; the others were ended for it.
    last = next((rank for rank in ranks if rank.out_of_memory), ranks[0])
    return Measurement(
        phases={
            name: _largest_phase([r.phases[name] for r in ranks if name in r.phases])
            for name in names
        },
        tokens=max((rank.tokens for rank in ranks if rank.tokens is not None), default=None),
        last_phase=last.last_phase,
        out_of_memory=any(rank.out_of_memory for rank in ranks),
        versions=ranks[0].versions,
    )


def _largest_phase(ranks: list[PhaseMeasurement]) -> PhaseMeasurement:
    return PhaseMeasurement(
        peak_bytes=_largest(rank.peak_bytes for rank in ranks),
        count=max(rank.count for rank in ranks),
        median_s=max(rank.median_s for rank in ranks),
        longest_s=max(rank.longest_s for rank in ranks),
    )


def _largest(every: Iterable[Mapping[str, int]]) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for each in every:
        for name, size in each.items():
            peaks[name] = max(size, peaks.get(name, 0))
    return peaks
