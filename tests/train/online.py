"""Stages that generate, on the tiny model: planned, in a run folder of their own, trained here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.cluster.profile import load_profile
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.recipe.load import load_recipe
from launcher.records.paths import RunPaths, StagePaths
from launcher.run import folder
from launcher.worker import methods
from launcher.worker.context import Context
from launcher.worker.stop import Stop
from tests.train.tiny_models import BASE

ROOT = Path(__file__).parents[2]
LETTERS = ["a", "b", "c", "d", "e", "f", "g", "h"]
SHORT = {"function": "length", "options": {"max": 8, "unit": "characters"}}


class StopAfter(Stop):
    """As if a signal had come before the end of that step."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self._left = steps

    def agreed(self, device: Any) -> bool:
        if self._left is not None:
            self._left -= 1
            self._told = self._left <= 0
        return super().agreed(device)


@dataclass(frozen=True)
class Trained:
    """A stage's run folder."""

    run: RunPaths
    stage: str

    @property
    def paths(self) -> StagePaths:
        return self.run.stage(self.stage)

    @property
    def weights(self) -> bytes:
        return (self.paths.model / "model.safetensors").read_bytes()

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = self.paths.metrics.read_text().splitlines()
        return [row for row in map(json.loads, lines) if "loss" in row]

    @property
    def log(self) -> str:
        """The end of what the first rank printed."""
        return (self.run.root / "rank0.log").read_text()[-3000:]

    def logged(self, key: str) -> list[float]:
        return [row[key] for row in self.metrics]


def prepare(
    root: Path,
    method: str,
    train: dict[str, Any],
    *,
    rewards: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    processes: int = 1,
    **stage: Any,
) -> Trained:
    """A run of one stage called `it`, made as `launcher submit` makes it.

    Where nothing else is said the reward is for being short, of characters: it tells any two apart.
    """
    root.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = [{"prompt": f"{a} {b}"} for a in LETTERS for b in LETTERS]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = {
        "launcher": 1,
        "name": "online",
        "model": BASE,
        "dtype": "float32",
        "resources": {"gpus": processes, **stage.pop("resources", {})},
        "stages": {
            "it": {
                "method": method,
                "data": {"path": "./rows.jsonl", "rows": len(rows), **stage.pop("data", {})},
                "rewards": rewards if rewards is not None else {"short": SHORT},
                "train": {"logging_steps": 1, "save_strategy": "no", **train},
                **stage,
            }
        },
    }
    (root / "recipe.yaml").write_text(json.dumps(text))
    recipe = load_recipe(str(root / "recipe.yaml"))
    plan = make_plan(recipe, load_profile("dev"), shape_of, trl_version="1.16.0")
    run, _ = folder.create(root / "runs", plan, recipe.resolved, new=True)
    paths = run.stage("it")
    for needed in (paths.attempts, paths.checkpoints):
        needed.mkdir(parents=True)
    return Trained(run, "it")


def train(made: Trained, stop_after: int | None = None) -> bool:
    """Train in this process, from the newest checkpoint; False where it was stopped."""
    plan = folder.load_plan(made.run)
    context = Context(made.run, plan, plan.stage(made.stage), "token", "1", 0, 1, 0, 0.0)
    return methods.run(context, StopAfter(stop_after)) is not None


def trained(root: Path, method: str, settings: dict[str, Any], **stage: Any) -> Trained:
    made = prepare(root, method, settings, **stage)
    assert train(made)
    return made


def resumed(root: Path, method: str, settings: dict[str, Any], stop: int, **stage: Any) -> Trained:
    made = prepare(root, method, settings, **stage)
    assert not train(made, stop_after=stop)
    saved = [path.name for path in made.paths.checkpoints.glob("checkpoint-*")]
    assert saved == [f"checkpoint-{stop}"]
    assert train(made)
    return made


def train_processes(made: Trained, processes: int) -> list[int]:
    """Train as a job does, with a trainer process for each rank; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    arguments = [str(made.run.root), made.stage, "token", "1"]
    ranks = []
    for rank in range(processes):
        env = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (made.run.root / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, "-m", "launcher.worker.train", *arguments]
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    try:
        # Long, since the first ZeRO run on a machine compiles DeepSpeed's operator for CPUs.
        return [rank.wait(timeout=500) for rank in ranks]
    finally:
        for process in ranks:
            process.kill()
