"""A Slurm of one's own, and the launcher as its user calls it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.records.paths import RunPaths, StagePaths

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = (sys.executable, "-c", "from launcher.cli.main import main; main()")
TIMEOUT_S = 600


class Failed(Exception):
    """What a cell did not do, in a few words."""


@dataclass(frozen=True)
class Site:
    """The folder of the runs, and the environment of the cluster's users."""

    home: Path
    env: Mapping[str, str]

    def write(self, recipe: Mapping[str, Any]) -> Path:
        path = self.home / f"{recipe['name']}.yaml"
        path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
        return path

    def call(self, *words: str | Path) -> Any:
        """The data that a `launcher` command prints. Raises Failed with its last words."""
        done = subprocess.run(
            [*LAUNCHER, *map(str, words), "--json"],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise Failed(" ".join(lines[-4:])[-400:] or f"exit code {done.returncode}")
        return json.loads(done.stdout)["data"]

    def finish(self, recipe: Mapping[str, Any]) -> RunPaths:
        """Run a recipe to its end. Raises Failed."""
        run = self.call("submit", self.write(recipe), "--new", "--wait")["run"]
        return RunPaths(self.home / "runs" / run)

    def stop_and_finish(self, recipe: Mapping[str, Any], stage: str) -> RunPaths:
        """The same, the stage's job being told to stop amid its steps, as before a time limit.

        Raises Failed where it ended before it could be told.
        """
        name = self.call("submit", self.write(recipe), "--new")["run"]
        run = RunPaths(self.home / "runs" / name)
        (state,) = self.call("status", name)["stages"]
        self._wait(lambda: _step(run.stage(stage)) >= 2, run, stage)
        subprocess.run(["scancel", "--signal=USR2", str(state["job_id"])], env=self.env, check=True)
        self._wait(run.stage(stage).complete.is_file, run, stage)
        self._wait(lambda: bool(outcomes(run.stage(stage))[-1]), run, stage)
        found = outcomes(run.stage(stage))
        if found != ["stopped", "complete"]:
            raise Failed(f"attempts ended {', '.join(found)}; expected stopped, complete")
        return run

    def _wait(self, condition: Any, run: RunPaths, stage: str) -> None:
        deadline, asked = time.monotonic() + TIMEOUT_S, time.monotonic()
        while not condition():
            now = time.monotonic()
            if now > deadline:
                raise Failed(f"still not after {TIMEOUT_S} s")
            if now - asked > 5:
                asked = now
                (state,) = self.call("status", run.root.name)["stages"]
                if state["state"] in ("failed", "blocked", "cancelled"):
                    raise Failed(f"{stage} {state['state']}: {state.get('reason') or ''}"[:400])
            time.sleep(0.05)


def outcomes(stage: StagePaths) -> list[str]:
    """How each attempt at a stage ended; empty for one that has not."""
    receipts = sorted((stage.root / "attempts").glob("[0-9].json"))
    return [str(json.loads(path.read_text()).get("outcome") or "") for path in receipts]


def _step(stage: StagePaths) -> int:
    try:
        now = json.loads(stage.progress.read_text())
    except (OSError, ValueError):
        return 0
    return int(now["step"]) if now["phase"] == "train" else 0


@contextmanager
def site(home: Path) -> Iterator[Site]:
    """A fresh cluster whose state and runs lie in `home`; it ends with the block."""
    state = home / "slurm"
    dev = ROOT / "slurm" / "dev"
    started = subprocess.run(
        [dev / "up", "--state", state], capture_output=True, text=True, timeout=180
    )
    if started.returncode != 0:
        raise Failed(f"no Slurm: {started.stderr.strip()[-400:]}")
    try:
        name, value = shlex.split(started.stdout)[1].split("=", 1)
        yield Site(
            home,
            {
                **os.environ,
                name: value,
                "LAUNCHER_CLUSTER": "dev",
                "LAUNCHER_RUNS": str(home / "runs"),
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            },
        )
    finally:
        subprocess.run([dev / "down", "--state", state], check=False, timeout=120)
