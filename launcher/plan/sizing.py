"""One stage's memory under settings that are given, where a plan would choose them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.errors import UsageError
from launcher.memory.estimate import estimate
from launcher.memory.models import Resident, residents
from launcher.memory.stack import Stack, stack_of
from launcher.memory.types import GIB, MemoryEstimate, Settings
from launcher.models.types import ModelShape
from launcher.plan.calibration import learn
from launcher.plan.evidence import Evidence, kind_of
from launcher.recipe.types import Stage


@dataclass(frozen=True)
class Sized:
    """What one process of a stage takes."""

    stage: Stage
    shapes: Mapping[str, ModelShape]
    settings: Settings
    stack: Stack
    estimate: MemoryEstimate
    margin: float
    """Share of a GPU's memory to be kept free."""
    margin_reason: str

    @property
    def models(self) -> tuple[Resident, ...]:
        """The models that are loaded, the one that trains first."""
        return residents(self.stage, self.shapes)

    def on(self, gpu_gib: float) -> MemoryEstimate:
        """The same on a GPU of this size, of which vLLM would take its share."""
        settings = replace(self.settings, device_bytes=int(gpu_gib * GIB))
        return estimate(self.stage, self.shapes, settings, self.stack)

    def fits(self, gpu_gib: float) -> bool:
        """Whether it fits a GPU of this size with the margin."""
        return self.on(gpu_gib).peak.total <= gpu_gib * GIB * (1 - self.margin)


def size(
    stage: Stage,
    shapes: Mapping[str, ModelShape],
    settings: Settings,
    stack: Stack | None = None,
) -> Sized:
    """The memory of `stage` as the formula alone says it, without what past runs measured.

    `shapes` is keyed by role. Raises UsageError for settings that contradict each other.
    """
    _check(settings)
    done = stack or stack_of(stage, settings)
    margin = learn(Evidence(), kind_of(stage, settings), "").margin
    found = estimate(stage, shapes, settings, done)
    return Sized(stage, shapes, settings, done, found, margin.value, margin.reason)


def _check(settings: Settings) -> None:
    if settings.processes % settings.processes_per_node:
        raise UsageError(
            f"{settings.processes} GPUs do not divide into nodes of {settings.processes_per_node}",
            hint="set `--gpus-per-node`",
        )
    if settings.offload != "none" and settings.zero_stage == 0:
        raise UsageError("states are offloaded under ZeRO only", hint="set `--zero 1`, 2 or 3")
    if settings.offload == "all" and settings.zero_stage != 3:
        raise UsageError("parameters are offloaded under ZeRO 3 only", hint="set `--zero 3`")
