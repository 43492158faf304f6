"""Every file of a run is named here, once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StagePaths:
    """The files of one stage."""

    root: Path

    @property
    def arguments(self) -> Path:
        """What the trainer was given, as YAML."""
        return self.root / "args.yaml"

    @property
    def deepspeed(self) -> Path:
        return self.root / "deepspeed.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The finished model: always whole weights that the next stage can load."""
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        """The adapter alone, where one was trained."""
        return self.root / "adapter"

    @property
    def out(self) -> Path:
        """What the program of a `command` stage writes."""
        return self.root / "out"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """The result of an `evaluate` stage."""
        return self.root / "evaluation.json"

    @property
    def evaluation_text(self) -> Path:
        """The same as Markdown, for people."""
        return self.root / "evaluation.md"

    @property
    def server(self) -> Path:
        """Where the stage's vLLM server is, once it answers."""
        return self.root / "server.json"

    @property
    def pairs(self) -> Path:
        """What was found in the stage's pairs of answers before it trained on them."""
        return self.root / "pairs.json"

    def old(self, number: int) -> Path:
        """Where that lies which the stage had left before it was run again."""
        return self.root / f"old-{number}"

    @property
    def inputs(self) -> Path:
        """What the stage was made from, by hash."""
        return self.root / "inputs.json"

    @property
    def complete(self) -> Path:
        return self.root / "COMPLETE.json"


@dataclass(frozen=True)
class RunPaths:
    """The files of a run."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def code(self) -> Path:
        """The snapshot of this package that the run's jobs import."""
        return self.root / "code"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def lock(self) -> Path:
        """Held by the command that acts on the run."""
        return self.root / "lock"

    def user_file(self, path: str) -> Path:
        """Where the snapshot of a file of the user's (a score function) lies."""
        original = Path(path)
        short = hashlib.sha256(path.encode()).hexdigest()[:8]
        return self.code / "user" / f"{original.stem}-{short}{original.suffix}"

    @property
    def local_chain(self) -> Path:
        """Locked by the process that runs the chain without Slurm, for as long as it lives."""
        return self.root / "local.lock"

    @property
    def local_log(self) -> Path:
        """What the process that runs the chain without Slurm prints."""
        return self.root / "local.log"

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    def stage(self, name: str) -> StagePaths:
        return StagePaths(self.stages / name)
