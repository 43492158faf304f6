"""Peak memory of a trainer process, and where the largest over the ranks is left."""

from __future__ import annotations

import resource
from pathlib import Path

from launcher.records.paths import StagePaths


def path(stage: StagePaths, job_id: str) -> Path:
    return stage.attempts / f"{job_id}.peak.json"


def host_peak() -> int:
    """Largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peaks() -> dict[str, int]:
    """Peaks of this process in bytes, with the device's where there is one."""
    import torch

    found = {"host": host_peak()}
    if torch.cuda.is_available():
        found["device allocated"] = torch.cuda.max_memory_allocated()
        found["device reserved"] = torch.cuda.max_memory_reserved()
    return found


def largest_over_ranks(own: dict[str, int]) -> dict[str, int]:
    """The largest of each figure over all ranks; `own` in a world of one."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return own
    gathered: list[dict[str, int] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    every = [peaks for peaks in gathered if peaks is not None]
    return {name: max(peaks.get(name, 0) for peaks in every) for name in own}
