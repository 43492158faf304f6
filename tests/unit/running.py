"""Values that the tests of runs, jobs and states share."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.plan.types import Allocation, Plan
from launcher.scheduler.jobs import JobRequest
from tests.unit.planning import LAPTOP, MIXED, chain, plan

ON_SLURM: Plan = plan(chain("Qwen/Qwen2.5-0.5B"), MIXED)
"""sft → rm → ppo → eval on a cluster."""
ON_THIS_MACHINE: Plan = plan(chain("tiny"), LAPTOP)

ALLOCATION = Allocation("eighty", "h100", 79.6, 2, 8, 8, 512.5, 600)


def every_other_time(act: Callable[..., Any]) -> Callable[..., Any]:
    """`act` on a file server that answers each thread every second time, and not the first."""
    calls: dict[int, itertools.count[int]] = defaultdict(lambda: itertools.count(1))

    def acts(*words: Any, **keywords: Any) -> Any:
        if next(calls[threading.get_ident()]) % 2:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return act(*words, **keywords)

    return acts


def request(**keywords: Any) -> JobRequest:
    """The job of one stage on two nodes of the partition `eighty`."""
    run = Path(keywords.pop("run", "/scratch/ada/runs/demo-0a1b2c3d"))
    given: dict[str, Any] = {
        "run": run,
        "run_id": run.name,
        "stage": "sft",
        "token": "f00d",
        "allocation": ALLOCATION,
        "cluster": MIXED,
        "logs": run / "stages" / "sft" / "logs",
        "code": run / "code",
        "python": "/opt/env/bin/python",
        "env": {},
    }
    return JobRequest(**{**given, **keywords})
