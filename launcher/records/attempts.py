"""Receipts: what one attempt at a stage was, written by the job itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from launcher.records import files, rounds
from launcher.records.failures import Answer, FailureClass
from launcher.records.measurement import Measurement

Outcome = Literal["complete", "stopped", "terminated", "superseded", "error", "killed"]
"""How an attempt ended: `stopped` with a checkpoint at a signal, to be gone on with; `terminated`
by a signal without one; `superseded` because its submission is not the current one; `error` in the
program; `killed` from outside."""

Kind = FailureClass | Literal["killed"]
"""The class of a failure as its process saw it; `killed`: a signal from outside ended the process,
and its supervisor says so."""


@dataclass(frozen=True)
class Failure:
    """The first thing that went wrong in a trainer process."""

    rank: int
    message: str
    """One line: the exception as Python prints it last."""
    traceback: str
    kind: Kind = "program"


@dataclass(frozen=True)
class Attempt:
    number: int
    token: str
    job_id: str
    host: str
    processes: int
    started: float
    """Seconds since the epoch."""
    ended: float | None = None
    outcome: Outcome | None = None
    """None: it runs, or died without a word."""
    exit_code: int | None = None
    failure: Failure | None = None
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    """`device allocated`, `device reserved` (GPU) and `host` (resident set): the largest over the
    ranks, in bytes."""
    measured: Measurement | None = None
    """Memory and time by phase; None: the trainer died before it could say, or an older launcher
    wrote this."""
    restarts: int = 0
    """How often the scheduler had started this job before."""
    round: int = 0
    """How often the stage had been started before within this start of the job."""
    rung: int = 0
    """Of the plan's ladder; 0: the plan as it stands."""
    began_at: int = 0
    """Optimizer step of the committed checkpoint that it went on from."""
    reached: int = 0
    """Optimizer step of the newest committed checkpoint when it ended."""
    failed: FailureClass | None = None
    """Why it did not finish; None: it did, it runs, or it died without a word."""
    answer: Answer | None = None
    """What its supervisor made of that; None: nobody was left to decide."""

    @property
    def round_key(self) -> str:
        """Tells the round from every other of the stage, in the names of files."""
        return rounds.key(self.job_id, self.restarts, self.round, self.token)

    @property
    def name(self) -> str:
        """Sixteen hex digits that name this attempt among all, and tell nothing of it."""
        return hashlib.sha256(f"{self.token}/{self.number}".encode()).hexdigest()[:16]

    @property
    def steps(self) -> int:
        """Optimizer steps that it finished."""
        return self.measured.steps if self.measured is not None else 0

    @property
    def tokens(self) -> int | None:
        """Of its largest forward pass with gradients."""
        return self.measured.tokens if self.measured is not None else None

    @property
    def out_of_memory(self) -> bool:
        """Whether it ended because the device's memory ran out."""
        return self.measured is not None and self.measured.out_of_memory


def start(folder: Path, attempt: Attempt) -> Attempt:
    """Write the receipt of a new attempt under the next number. Returns it with that number."""
    files.private_folder(folder)
    number = 1 + max((int(path.stem) for path in _receipts(folder)), default=0)
    while True:
        numbered = replace(attempt, number=number)
        if files.claim(folder / f"{number}.json", files.encode(numbered)):
            return numbered
        number += 1


def finish(folder: Path, attempt: Attempt) -> None:
    """Write the receipt anew, with its end."""
    files.write_json(folder / f"{attempt.number}.json", attempt)


def read(folder: Path) -> tuple[Attempt, ...]:
    """All receipts, oldest first."""
    receipts = (files.read_json(path, Attempt) for path in _receipts(folder))
    return tuple(sorted((r for r in receipts if r is not None), key=lambda attempt: attempt.number))


def failure_path(folder: Path, round_key: str, rank: int) -> Path:
    """Where the trainer process of `rank` leaves its `Failure` for the supervisors to read.
    `round_key`: of `launcher.records.rounds.key`."""
    return folder / f"{round_key}.rank{rank}.failure.json"


def failures(folder: Path, round_key: str) -> tuple[Failure, ...]:
    """What the ranks of a round reported, the first written first."""
    paths = sorted(folder.glob(f"{round_key}.rank*.failure.json"), key=lambda p: p.stat().st_mtime)
    return tuple(f for f in (files.read_json(path, Failure) for path in paths) if f is not None)


def _receipts(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[0-9]*.json") if path.stem.isdigit()]
