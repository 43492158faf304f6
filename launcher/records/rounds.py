"""What the supervisors of one job tell each other: a round begins, a rank is done, what comes next.

A round is one start of the stage's trainers within one start of the job. The supervisor of rank 0
opens it and closes it; those of the other ranks wait for its words. Every file is of one start of
one job, and written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from launcher.records import files

T = TypeVar("T")

Killed = Literal["time", "ending", "server", "others", "hang"]
"""Why a supervisor ended its trainer: its `time` to stop was up; what had started the job is
`ending` it; the stage's `server` failed; `others` of its world had ended; it gave no sign of life.
"""


def key(job_id: str, restarts: int, number: int, token: str) -> str:
    """What tells one round from every other of the stage: JOBID.RESTARTS.ROUND-TOKEN.

    Slurm gives an id again when it has lost its state: eight digits of the submission's token tell
    those jobs apart.
    """
    return f"{job_id}.{restarts}.{number}-{token[:8]}"


@dataclass(frozen=True)
class Opening:
    """Rank 0: the trainers may start, or must not."""

    rung: int
    port: int
    """MASTER_PORT of this round, free on the node of rank 0 a moment ago."""
    refused: int | None = None
    """The exit code of a job that must not train; None: it may."""


@dataclass(frozen=True)
class Ending:
    """One rank: what became of its trainer."""

    rank: int
    exit_code: int
    """As a shell would tell it (128 + signal)."""
    killed: Killed | None = None
    told: bool = False
    """Whether a signal had asked this rank's supervisor to stop."""
    out_of_host_memory: bool = False
    """Whether the system ended it for want of host memory, as far as its node tells."""
    host_peak: int = 0
    """Largest resident set that was seen of it, in bytes."""


@dataclass(frozen=True)
class Closing:
    """Rank 0: what comes after the round."""

    then: Literal["again", "requeue", "end"]
    exit_code: int


def opening_path(attempts: Path, round_key: str) -> Path:
    return attempts / f"{round_key}.opening.json"


def ending_path(attempts: Path, round_key: str, rank: int) -> Path:
    return attempts / f"{round_key}.rank{rank}.ending.json"


def closing_path(attempts: Path, round_key: str) -> Path:
    return attempts / f"{round_key}.closing.json"


def say(path: Path, word: Opening | Ending | Closing) -> None:
    files.private_folder(path.parent)
    files.write_json(path, word)


def heard(path: Path, kind: type[T]) -> T | None:
    """What was said in `path`; None: nothing yet."""
    try:
        # A listing asks the server of a network file system anew; to look for the file alone may
        # answer from memory that it is not there.
        if path not in path.parent.iterdir():
            return None
        return files.read_json(path, kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def endings(attempts: Path, round_key: str) -> tuple[Ending, ...]:
    """Those of the round that are there, by rank."""
    found = (heard(path, Ending) for path in attempts.glob(f"{round_key}.rank*.ending.json"))
    return tuple(sorted((each for each in found if each is not None), key=lambda e: e.rank))
