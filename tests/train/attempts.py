"""Attempts at a stage in real processes, and what befalls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.train.online import ROOT, Trained


@dataclass(frozen=True)
class Fault:
    """`moments`: see `checkpoint_process`."""

    moments: tuple[tuple[Any, ...], ...]
    rank: int = 0
    signal: int = signal.SIGKILL


def attempts(made: Trained, processes: int, *faults: Fault | None) -> list[dict[str, Any]]:
    """What `run` takes: an attempt for each fault, None where nothing befalls it."""
    same = {"run": str(made.run.root), "stage": made.stage, "processes": processes}
    return [same | (vars(fault) if fault is not None else {}) for fault in faults]


def run(*wanted: dict[str, Any]) -> list[list[int]]:
    """Run the attempts one after another; the exit codes of the ranks of each."""
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("checkpoint_process.py"))],
        input=json.dumps(wanted),
        env=env,
        capture_output=True,
        text=True,
        # Long, since the first ZeRO run on a machine compiles DeepSpeed's operator for CPUs.
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found
