"""Where the vLLM server of a stage is, or why there is none: from the server's task to the others.

One start of a job is told from every other by token, job id and restarts, so that nobody reads what
an earlier one left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.records import attempts, files, rounds
from launcher.records.paths import StagePaths


@dataclass(frozen=True)
class Start:
    """One start of a stage's job."""

    token: str
    job_id: str
    restarts: int = 0

    @property
    def round_key(self) -> str:
        """Of its only round: a stage with a server has one a start."""
        return rounds.key(self.job_id, self.restarts, 0, self.token)

    def receipt(self, stage: StagePaths) -> attempts.Attempt | None:
        """That of its attempt; None: it has not begun."""
        every = attempts.read(stage.attempts)
        return next((each for each in every if self.is_of(each)), None)

    def outcome(self, stage: StagePaths) -> attempts.Outcome | None:
        """How its attempt has ended, by its receipt; None: it has not, or has not begun."""
        found = self.receipt(stage)
        return found.outcome if found is not None else None

    def is_of(self, receipt: attempts.Attempt) -> bool:
        return self == Start(receipt.token, receipt.job_id, receipt.restarts)


@dataclass(frozen=True)
class Server:
    start: Start
    state: Literal["ready", "failed"]
    url: str = ""
    """`http://ADDRESS:PORT`, where it is ready."""
    reason: str = ""
    """Why it failed, in one sentence."""


def write(stage: StagePaths, server: Server) -> None:
    files.private_folder(stage.root)
    files.write_json(stage.server, server)


def read(stage: StagePaths, start: Start) -> Server | None:
    """What the server of this start said last; None: nothing yet."""
    found = files.read_json(stage.server, Server)
    return found if found is not None and found.start == start else None
