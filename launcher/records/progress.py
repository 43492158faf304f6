"""How far a running stage is: one small file, rewritten as it goes."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.records import files
from launcher.records.paths import StagePaths


@dataclass(frozen=True)
class Progress:
    phase: str
    """`load`, `train`, `save`, `evaluate`, …"""
    step: int
    total: int | None
    """Steps of the phase; None while it is not known."""
    time: float
    """When this was written (seconds since the epoch)."""
    phase_started: float
    token: str | None = None
    """The submission it belongs to."""
    loss: float | None = None
    reward: float | None = None


def write(stage: StagePaths, progress: Progress) -> None:
    files.write_json(stage.progress, progress)


def read(stage: StagePaths) -> Progress | None:
    return files.read_json(stage.progress, Progress)
