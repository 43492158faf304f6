"""Runs of this machine, as their user and the kernel see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.slurm.devcluster import wait_until
from tests.slurm.shell import Shell

RECIPES = Path(__file__).parents[2] / "recipes"
TINY_SFT = str(RECIPES / "tiny" / "sft.yaml")
# More steps than any test waits for.
ENDLESS = "stages.sft.train.max_steps=100000"
# What a loaded machine may take from the start of a stage to its first step.
LOAD_S = 240


class LocalShell(Shell):
    """A user's shell on a machine without Slurm."""

    def __init__(self, home: Path) -> None:
        self.runs = home / "runs"
        self.home = home
        self.env = {**os.environ, "LAUNCHER_CLUSTER": "local", "OMP_NUM_THREADS": "1"}

    def stage(self, run: str, name: str = "sft") -> dict[str, Any]:
        """What `status` says of a stage."""
        stages: list[dict[str, Any]] = self.data("status", run)["stages"]
        return next(stage for stage in stages if stage["name"] == name)

    def wait_for_steps(self, run: str, steps: int, name: str = "sft") -> None:
        """Return once the stage runs and has done so many steps."""

        def far_enough() -> bool:
            stage = self.stage(run, name)
            assert stage["state"] in ("pending", "running"), stage
            progress = stage["progress"] or {"phase": "", "step": 0}
            return bool(progress["phase"] == "train" and progress["step"] >= steps)

        wait_until(far_enough, f"{run} to be at step {steps}", LOAD_S)

    def wait_for_state(self, run: str, state: str, timeout: float = LOAD_S) -> None:
        wait_until(lambda: bool(self.data("status", run)["state"] == state), state, timeout)

    def steps(self, run: str) -> list[int]:
        """The steps that the sft stage did, in the order in which it did them."""
        return [row["step"] for row in self.metrics(run, "sft") if "loss" in row]

    def processes(self, run: str, module: str = "") -> list[int]:
        """The pids of a run's processes, of one module alone if named."""
        return processes_of(self.runs / run, module)


def processes_of(folder: Path, module: str = "") -> list[int]:
    """The pids of the processes whose command line names `folder`, and `module` if given."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        words = line.split("\0")
        inside = any(word == str(folder) or word.startswith(f"{folder}/") for word in words)
        if inside and (not module or module in words):
            found.append(int(path.parent.name))
    return sorted(found)
