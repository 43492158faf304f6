"""Whether the system ended a process because the host's memory ran out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_GROUP = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_NODE = Path("/proc/vmstat")


def kills() -> int:
    """How many processes the kernel has killed for want of memory, in this job where the node's
    control groups say so, else on the whole node. 0 where nobody counts."""
    for path in _counters():
        with suppress(OSError, ValueError, IndexError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _counters() -> list[Path]:
    found: list[Path] = []
    with suppress(OSError):
        for line in _GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            below = path.lstrip("/")
            if not controllers:
                found.append(_ROOT / below / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(_ROOT / "memory" / below / "memory.oom_control")
    return [*found, _NODE]


def nearly_all(peak: int, limit: int) -> bool:
    """Whether a process whose largest resident set was `peak` may have met `limit` (bytes). Pure.

    Slurm without control groups looks from time to time and kills by itself.
    """
    return limit > 0 and peak >= 0.9 * limit
