"""What was measured of one case beside what was estimated: one JSON line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.gpu_cases.case import Case
from launcher.memory.types import Phase
from launcher.plan.observe import LEAST_STEPS
from launcher.records.measurement import STEP, Measurement

# Measured phase → the estimate's phases that lie in it.
PHASES: Mapping[str, tuple[str, ...]] = {
    "load": ("load",),
    "rollout": ("rollout",),
    "score": ("score",),
    "update": ("loss", "backward"),
    "optimizer step": ("step",),
}


@dataclass(frozen=True)
class Machine:
    device: str
    """The GPU as its driver names it; `cpu` without one."""
    memory_bytes: int
    """What programs can use of the GPU; of the host without one."""
    driver: str
    python: str


@dataclass(frozen=True)
class Result:
    case: Case
    machine: Machine
    date: str
    """ISO 8601, UTC."""
    fits: bool
    """Whether it was estimated to fit, with the margin that a plan keeps."""
    estimated: Mapping[str, Mapping[str, int]]
    """Phase → item → bytes."""
    margin: float
    step_seconds: float | None
    """Predicted, of a whole optimizer step."""
    outcome: str
    """Of the attempt; `saved` in part where it was ended while it saved."""
    out_of_memory: bool
    message: str | None
    """What it failed with."""
    measured: Measurement | None
    seconds: float
    """Of the whole run: starts, load, steps and all."""

    @property
    def short(self) -> int | None:
        """Tokens of the largest forward pass, where they are fewer than the case is about."""
        tokens = self.measured.tokens if self.measured is not None else None
        # What a model of chance writes may end a little early.
        return tokens if tokens is not None and tokens < 0.95 * self.case.tokens else None

    @property
    def figures(self) -> dict[str, tuple[int, int]]:
        """What is counted → estimated and measured bytes at the peak. Empty where it failed."""
        if self.measured is None or self.measured.steps < LEAST_STEPS:
            return {}
        if self.short is not None or self.out_of_memory:
            return {}
        return _largest([pairs for _, pairs in self.by_phase()])

    def by_phase(self) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
        """Measured phase and its `figures`, of those that the estimate has too."""
        estimated = {name: Phase(name, items) for name, items in self.estimated.items()}
        measured = self.measured.phases if self.measured is not None else {}
        for name, parts in PHASES.items():
            ours = [estimated[part] for part in parts if part in estimated]
            if name not in measured or not ours:
                continue
            peaks = measured[name].peak_bytes
            if self.machine.device == "cpu":
                pairs = {"resident": (max(p.total for p in ours), peaks.get("host", 0))}
            else:
                pairs = {
                    "allocated": (max(p.allocated for p in ours), peaks["device allocated"]),
                    "reserved": (max(p.reserved for p in ours), peaks["device reserved"]),
                }
            yield name, pairs

    @property
    def step_times(self) -> tuple[float | None, float | None]:
        """Predicted and measured seconds of an optimizer step (the median)."""
        phases = self.measured.phases if self.measured is not None else {}
        return self.step_seconds, phases[STEP].median_s if STEP in phases else None


def _largest(phases: list[dict[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    names = dict.fromkeys(name for each in phases for name in each)
    return {
        name: (max(each[name][0] for each in phases), max(each[name][1] for each in phases))
        for name in names
    }


def read(path: Path) -> list[Result]:
    """The results in a file, oldest first; none where it is not there. Raises ValueError."""
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Result) for line in lines if line.strip()]


def append(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        handle.write(msgspec.json.encode(result) + b"\n")
