"""A user's shell on the login node of a development cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.slurm.devcluster import DevCluster, wait_until

LAUNCHER = str(Path(sys.executable).parent / "launcher")


class Shell:
    """A user's shell on the login node of the development cluster."""

    def __init__(self, cluster: DevCluster, home: Path) -> None:
        self.runs = home / "runs"
        self.home = home
        self.env = {**os.environ, **cluster.env, "LAUNCHER_CLUSTER": "dev"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.start_as((LAUNCHER,), *words)

    def start_as(self, program: Sequence[str], *words: str) -> subprocess.Popen[str]:
        """The same, by another program than the installed command."""
        return subprocess.Popen(
            [*program, *words],
            env=self.env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *words: str, code: int = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=400)
        assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
        return out

    def data(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))["data"]

    def metrics(self, run: str, stage: str) -> list[dict[str, Any]]:
        """What the stage logged, a mapping a step."""
        path = self.runs / run / "stages" / stage / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def attempts(self, run: str, stage: str = "sft") -> list[dict[str, Any]]:
        """The receipts of a stage, oldest first."""
        folder = self.runs / run / "stages" / stage / "attempts"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]

    def outcomes(self, run: str, stage: str = "sft") -> list[str]:
        """How each attempt at a complete stage ended.

        COMPLETE comes before the last receipt: a supervisor writes it once its trainer has ended.
        """

        def found() -> list[str]:
            return [each["outcome"] for each in self.attempts(run, stage)]

        wait_until(lambda: all(found()), "the last receipt", 30)
        return found()
