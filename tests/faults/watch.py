"""Looks at a run's trainers as long as it lasts: a proof that does not rest on the run's files."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from tests.faults import processes

EVERY_S = 0.25
LOADING_S = 3.0
"""A trainer that was just started loads for longer than this before it touches anything; an older
one that learns of it has so long to end. A process that is being forked has its parent's words."""


class Watch:
    """In a `with` block: what was seen of the trainers of the run in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.first: dict[str, float] = {}
        """Stage → when a trainer of it was first seen, in seconds since the epoch."""
        self.twice: set[tuple[str, int]] = set()
        """Stage and rank of which two trainers were at work at once."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def _look(self) -> None:
        since: dict[tuple[str, int], float] = {}
        while not self._over.wait(EVERY_S):
            now = time.time()
            seen: dict[tuple[str, int], int] = {}
            for each in processes.of_run(self._root, processes.TRAINER):
                self.first.setdefault(each.stage, now)
                key = (each.stage, each.rank)
                seen[key] = seen.get(key, 0) + 1
            double = {key for key, count in seen.items() if count > 1}
            since = {key: since.get(key, now) for key in double}
            self.twice |= {key for key, began in since.items() if now - began > LOADING_S}
