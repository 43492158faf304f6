"""Looks at a run's trainers as long as it lasts: a proof that does not rest on the run's files."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from tests.faults import processes

EVERY_S = 0.25


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
        before: set[tuple[str, int]] = set()
        while not self._over.wait(EVERY_S):
            now = time.time()
            seen: dict[tuple[str, int], int] = {}
            for each in processes.of_run(self._root, processes.TRAINER):
                self.first.setdefault(each.stage, now)
                key = (each.stage, each.rank)
                seen[key] = seen.get(key, 0) + 1
            double = {key for key, count in seen.items() if count > 1}
            # Seen twice in a row: a process that is being forked has its parent's words.
            self.twice |= double & before
            before = double
