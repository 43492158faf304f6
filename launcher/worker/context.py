"""What a trainer process knows of its place: the run, the stage's plan, and its rank."""

from __future__ import annotations

import importlib.metadata
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher.plan.document import plan_from_json
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import Stage, stage_of
from launcher.records import progress
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import revision, streams
from launcher.worker.heartbeat import beat
from launcher.worker.losses import Losses
from launcher.worker.measure import Meter

VERSIONED = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets")


@dataclass
class Context:
    """One stage on one rank."""

    run: RunPaths
    plan: Plan
    stage_plan: StagePlan
    token: str
    start: str
    """`launcher.records.rounds.key` of the round."""
    rank: int
    world: int
    local_rank: int
    phase_started: float
    meter: Meter | None = None
    """Measures this rank; None: nobody asks."""
    losses: Losses = field(default_factory=Losses)

    @classmethod
    def of(cls, run: str, stage: str, token: str, start: str, rung: int = 0) -> Context:
        """Of this process. `rung`: of the plan's ladder, where the stage's memory did not do."""
        paths = RunPaths(Path(run))
        plan = plan_from_json(paths.plan.read_text())
        return cls(
            run=paths,
            plan=plan,
            stage_plan=plan.stage(stage).at(rung),
            token=token,
            start=start,
            rank=int(os.environ["RANK"]),
            world=int(os.environ["WORLD_SIZE"]),
            local_rank=int(os.environ["LOCAL_RANK"]),
            phase_started=time.time(),
        )

    @property
    def stage(self) -> Stage:
        return self.stage_plan.stage

    @property
    def paths(self) -> StagePaths:
        return self.run.stage(self.stage.name)

    @property
    def on_cpu(self) -> bool:
        return self.plan.cluster.device == "cpu"

    @property
    def loads(self) -> dict[str, bool]:
        """What every `from_pretrained` of this stage is told of code that lies beside a model."""
        return {"trust_remote_code": self.plan.trust_remote_code}

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def folder_of(self, reference: str, *, weights: bool = True) -> str:
        """A model reference as what `from_pretrained` takes: another stage's model, or its own
        name or folder. `weights`: whether these are loaded. Raises UsageError for a revision that
        cannot be had."""
        upstream = stage_of(reference)
        if upstream is not None:
            use = self.plan.stage(upstream).stage.use
            if use is None:
                return str(self.run.stage(upstream).model)
            reference = use
        return revision.placed(reference, code=self.plan.trust_remote_code, weights=weights)

    def model(self, role: str) -> str | None:
        """What fills `role`, as `folder_of` gives it; None where the recipe leaves it out."""
        reference = self.stage.models.get(role)
        return None if reference is None else self.folder_of(reference)

    @property
    def tokenizer(self) -> str:
        """Where the stage's tokenizer is: the recipe's word, else that of its main model."""
        from launcher.recipe.methods import METHODS

        if self.stage.tokenizer is not None:
            return self.folder_of(self.stage.tokenizer, weights=False)
        own = self.model(METHODS[self.stage.method].main_role)
        assert own is not None  # the recipe's checks see to it
        return own

    def enter(self, phase: str, total: int | None = None) -> None:
        """Say that a new phase of the stage begins."""
        self.phase_started = time.time()
        # Of a training the steps tell; what comes before the first is the first data.
        self.measure("data" if phase == "train" else phase)
        self.report(phase, 0, total)

    def measure(self, phase: str) -> None:
        """Measure what comes as this phase, without a word to the progress file."""
        if self.meter is not None:
            self.meter.enter(phase)

    def report(
        self,
        phase: str,
        step: int,
        total: int | None,
        loss: float | None = None,
        reward: float | None = None,
    ) -> None:
        beat(phase)
        if self.is_main:
            now = progress.Progress(
                phase=phase,
                step=step,
                total=total,
                time=time.time(),
                phase_started=self.phase_started,
                token=self.token,
                loss=loss,
                reward=reward,
            )
            streams.forgive("progress.json", lambda: progress.write(self.paths, now))


def versions() -> dict[str, str]:
    """Package → installed version, of those that a result depends on.

    One that is not installed is left out: DeepSpeed is needed for ZeRO only.
    """
    found = {}
    for name in VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
