"""The plan: the one document that the submitter, the job on the node and the report all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.cluster.types import Cluster
from launcher.memory.types import MemoryEstimate
from launcher.plan.calibration import Calibration
from launcher.recipe.types import Offload, Stage

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Allocation:
    """What is asked of the scheduler: `nodes` × `tasks_per_node`, one task a GPU."""

    partition: str
    gpu: str | None
    """GPU type in the profile; None: no GPU is asked for."""
    gpu_memory_gib: float | None
    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    host_memory_gib: float
    """Host memory a node (GiB)."""
    time_minutes: int

    @property
    def processes(self) -> int:
        """Tasks over all nodes: the world size."""
        return self.nodes * self.tasks_per_node


@dataclass(frozen=True)
class Rejected:
    """An alternative that was considered, and why it lost."""

    what: str
    why: str


@dataclass(frozen=True)
class StagePlan:
    stage: Stage
    """The recipe's stage, whole."""
    allocation: Allocation
    zero_stage: int
    """0: no DeepSpeed on one process, DDP on several."""
    offload: Offload
    gradient_checkpointing: bool
    micro_batch: int
    """Sequences of one forward pass on one process."""
    accumulation: int
    estimate: MemoryEstimate
    margin: float
    """Share of the device's memory kept free."""
    deepspeed: Mapping[str, Any] | None
    """The DeepSpeed configuration, complete; None: not used."""
    rejected: tuple[Rejected, ...] = ()
    gather_for_generation: bool = True
    """Under ZeRO-3, whether each GPU holds the whole policy while it generates (TRL's
    `ds3_gather_for_generation`); False where that does not fit, which is slow."""
    calibration: Calibration = field(default_factory=Calibration)
    """What past runs say of the estimate and of the margin."""

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def runs(self) -> bool:
        """False where a finished model stands in: nothing is allocated, every size is zero."""
        return self.stage.use is None

    @property
    def sequences_per_step(self) -> int:
        """micro-batch × accumulation × processes: the stage's global batch."""
        return self.micro_batch * self.accumulation * self.allocation.processes


@dataclass(frozen=True)
class Plan:
    schema_version: int
    launcher_version: str
    trl_version: str
    """The TRL whose keys the recipe was checked against; compared on the node."""
    name: str
    identity: str
    """`Recipe.identity` of the recipe that was planned."""
    cluster: Cluster
    stages: tuple[StagePlan, ...]
    """In run order. A stage with `use` stands in it without being run."""
    evidence: str = ""
    """`Evidence.digest` of the past runs that it was made with."""

    def stage(self, name: str) -> StagePlan:
        """The plan of the stage called `name`. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
