"""What commands take: clock and processor, with their modules compiled."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    wall: float
    """Seconds by the clock."""
    processor: float
    """Seconds of user and system time, of what the commands start too."""


def by_commands(work: Callable[[], object]) -> Spent:
    """What the processes take that `work` runs and waits for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(ended - began, processor)


def compiled(folder: str | Path, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`env` for commands that keep their modules in `folder` once they are compiled, which the
    first run does."""
    kept = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}
